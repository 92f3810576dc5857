import { EXPORT_SCHEMES, type ExportSchemeName } from '../api/export-schemes.js';
import { UsageError } from './failure.js';

const SCHEMES = Object.keys(EXPORT_SCHEMES) as ExportSchemeName[];

export interface Destination {
  readonly scheme: ExportSchemeName;
  readonly path: string;
}

const EXPORTS = SCHEMES.map((known) => `${known}:PATH`).join(', ');

/**
 * Parses the destination of an export: `scheme:path`, or `-` for `tar:-`. `known` lists the
 * destinations in the hint.
 * @throws UsageError for an unknown scheme or no path
 */
export function parseDestination(text: string, known = EXPORTS): Destination {
  if (text === '-') return { scheme: 'tar', path: '-' };
  const cut = text.indexOf(':');
  const scheme = SCHEMES.find((name) => name === text.slice(0, Math.max(0, cut)));
  const hint = isCopyDestination(text)
    ? `blobs as they are: zpull copy IMAGE ${text}`
    : `a destination is one of ${known}`;
  if (scheme === undefined) throw new UsageError(`"${text}" is no destination`, hint);
  const path = text.slice(cut + 1);
  if (path === '') throw new UsageError(`"${text}" names no path`, hint);
  return { scheme, path };
}

/** Whether an export or a copy writes to the standard output. */
export function isStdout(destination: Destination | CopyDestination): boolean {
  if (destination.path !== '-') return false;
  return 'scheme' in destination
    ? EXPORT_SCHEMES[destination.scheme].canStream
    : destination.kind === 'archive';
}

/**
 * Refuses an archive on the standard output that would mix with `--json` or go to a terminal.
 * @throws UsageError
 */
export function checkStdout(text: string, json: boolean | undefined, isTerminal: boolean): void {
  if (json === true) {
    throw new UsageError(
      `${text} and --json both write to the standard output`,
      'leave out --json, or name a file',
    );
  }
  if (isTerminal) {
    throw new UsageError(
      `${text} would write an archive to the terminal`,
      'redirect it to a pipe or a file, or name a file',
    );
  }
}

/** The destination of a copy. */
export interface CopyDestination {
  readonly kind: 'layout' | 'archive';
  readonly path: string;
  readonly tag?: string;
}

const COPY_KINDS = { oci: 'layout', 'oci-archive': 'archive' } as const;

/** Whether a destination is one of a copy, well-formed or not. */
function isCopyDestination(text: string): boolean {
  return Object.keys(COPY_KINDS).some((scheme) => text.startsWith(`${scheme}:`));
}

/** A tag in a layout (OCI image-spec, annotations.md, "org.opencontainers.image.ref.name"). */
const REF_NAME = /^[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+)*$/;

/**
 * Parses the destination of a copy: `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`. As in other tools,
 * the first colon of the path ends it.
 * @throws UsageError for another scheme, no path, or a tag that cannot be one
 */
export function parseCopyDestination(text: string): CopyDestination {
  const hint = 'a copy goes to oci:DIR[:TAG] or oci-archive:FILE[:TAG]';
  const [scheme = '', path = '', ...rest] = text.split(':');
  if (!Object.hasOwn(COPY_KINDS, scheme)) {
    throw new UsageError(`"${text}" is no destination of a copy`, hint);
  }
  const kind = COPY_KINDS[scheme as keyof typeof COPY_KINDS];
  if (path === '') throw new UsageError(`"${text}" names no path`, hint);
  if (rest.length === 0) return { kind, path };
  const tag = rest.join(':');
  if (!REF_NAME.test(tag)) throw new UsageError(`"${tag}" cannot be the tag of an image`, hint);
  return { kind, path, tag };
}

/** Parses `--output`: a destination of an export or of a copy. @throws UsageError as for those */
export function parseOutput(text: string): Destination | CopyDestination {
  if (isCopyDestination(text)) return parseCopyDestination(text);
  return parseDestination(text, `${EXPORTS}, oci:DIR[:TAG], oci-archive:FILE[:TAG]`);
}
