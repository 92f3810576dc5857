/**
 * Types that say nothing of what something is: writers that do not know better state them, and proxies and registries that keep no
 * types. What it is then, its contents tell.
 */
const VAGUE_TYPES: ReadonlySet<string> = new Set([
  '',
  'application/json',
  'application/octet-stream',
  'application/x-www-form-urlencoded',
  'binary/octet-stream',
  'text/html',
  'text/plain',
]);

/** A media type as it is compared: in lower case and without parameters (RFC 9110, section 8.3.1). */
export function mediaTypeOf(text: string): string {
  return (text.split(';', 1)[0] ?? '').trim().toLowerCase();
}

/** Whether a media type, as `mediaTypeOf` has it, leaves open what something is. */
export function isVague(mediaType: string): boolean {
  return VAGUE_TYPES.has(mediaType);
}
