/** What a `Content-Range` header says, half-open; `sizeBytes` undefined where the header has `*`. */
export interface ContentRange {
  /** Undefined for `bytes *\/size`, the form of a 416 answer. */
  readonly range: { readonly start: number; readonly end: number } | undefined;
  readonly sizeBytes: number | undefined;
}

const FORM = /^bytes (?:(\d{1,16})-(\d{1,16})|\*)\/(?:(\d{1,16})|\*)$/i;

/**
 * The header as half-open numbers, or undefined when it is not `bytes a-b/size`, `bytes a-b/*` or `bytes *\/size`
 * with safe integers in order (RFC 9110, 14.4).
 */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = FORM.exec(header ?? '');
  if (match === null) return undefined;
  const [, first, last, size] = match;
  const sizeBytes = size === undefined ? undefined : Number(size);
  if (sizeBytes !== undefined && !Number.isSafeInteger(sizeBytes)) return undefined;
  if (first === undefined || last === undefined) {
    return sizeBytes === undefined ? undefined : { range: undefined, sizeBytes };
  }
  const start = Number(first);
  const end = Number(last) + 1;
  if (!Number.isSafeInteger(end) || start >= end || (sizeBytes !== undefined && end > sizeBytes))
    return undefined;
  return { range: { start, end }, sizeBytes };
}

/** The `Range` header for `[start, end)`: the one place where a half-open range becomes HTTP's inclusive form. */
export function rangeHeader(start: number, end: number): string {
  return `bytes=${start}-${end - 1}`;
}

/** A `Content-Length` in bytes; undefined when there is none, NaN when it is no number. */
export function parseContentLength(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const sizeBytes = /^\d{1,16}$/.test(header) ? Number(header) : Number.NaN;
  return Number.isSafeInteger(sizeBytes) ? sizeBytes : Number.NaN;
}
