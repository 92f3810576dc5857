import type { BlobRange } from '../format/arrays.js';
import { type Digest, isDigest } from '../format/digest.js';
import { type Body, bodySizeBytes } from './body.js';
import type { FaultAction } from './faults.js';
import type { LayoutReader } from './layout-reader.js';

/** A complete answer, before ranges and faults are applied. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Body;
  /** Whether a Range header is honoured. */
  readonly ranges: boolean;
}

/** The endpoint that a path names (distribution-spec, "Endpoints"). */
export type Target =
  | { readonly kind: 'base' }
  | { readonly kind: 'manifest'; readonly name: string; readonly reference: string }
  | { readonly kind: 'blob'; readonly name: string; readonly digest: string }
  | { readonly kind: 'tags'; readonly name: string };

/** Codes of the distribution spec ("Error Codes"), and two of Docker's registry. */
type RegistryErrorCode =
  | 'BLOB_UNKNOWN'
  | 'DIGEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'RANGE_INVALID'
  | 'TOOMANYREQUESTS'
  | 'UNAUTHORIZED'
  | 'UNAVAILABLE'
  | 'UNSUPPORTED';

const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
/** The limit of clients and Docker's registry. */
const MAX_NAME_LENGTH = 255;

/** Returns the endpoint of `path`, or undefined for another path. */
export function parseTarget(path: string): Target | undefined {
  if (path === '/v2/' || path === '/v2') return { kind: 'base' };
  const [, name = '', rest = ''] = /^\/v2\/(.+)\/((?:manifests|blobs)\/[^/]+|tags\/list)$/.exec(path) ?? [];
  if (rest === 'tags/list') return { kind: 'tags', name };
  if (rest.startsWith('manifests/')) return { kind: 'manifest', name, reference: rest.slice(10) };
  if (rest.startsWith('blobs/')) return { kind: 'blob', name, digest: rest.slice(6) };
  return undefined;
}

/**
 * Returns the answer of a read-only registry that has the layout's images under every repository
 * name.
 */
export function answerTarget(target: Target, query: URLSearchParams, layout: LayoutReader): Answer {
  if (target.kind === 'base') return jsonAnswer(200, {});
  if (target.name.length > MAX_NAME_LENGTH || !NAME.test(target.name)) {
    return errorAnswer(400, 'NAME_INVALID', 'invalid repository name');
  }
  if (target.kind === 'tags') return tagsAnswer(target.name, query, layout.tags());
  if (target.kind === 'manifest') return manifestAnswer(target.reference, layout);
  if (!isDigest(target.digest)) return errorAnswer(400, 'DIGEST_INVALID', 'not a sha256 digest');
  return blobAnswer(target.digest, layout);
}

/** Returns the complete blob of a digest, or 404. */
export function blobAnswer(digest: Digest, layout: LayoutReader): Answer {
  const blob = layout.blob(digest);
  if (blob === undefined) return errorAnswer(404, 'BLOB_UNKNOWN', 'blob unknown to registry');
  return {
    status: 200,
    headers: {
      'Content-Type': 'application/octet-stream',
      'Docker-Content-Digest': digest,
      ETag: `"${digest}"`,
      'Accept-Ranges': 'bytes',
    },
    body: blob,
    ranges: true,
  };
}

function manifestAnswer(reference: string, layout: LayoutReader): Answer {
  if (reference.includes(':') && !isDigest(reference)) {
    return errorAnswer(400, 'DIGEST_INVALID', 'not a sha256 digest');
  }
  const manifest = layout.manifest(reference);
  if (manifest === undefined) return errorAnswer(404, 'MANIFEST_UNKNOWN', 'manifest unknown to registry');
  return {
    status: 200,
    headers: {
      'Content-Type': manifest.mediaType,
      'Docker-Content-Digest': manifest.digest,
      ETag: `"${manifest.digest}"`,
    },
    body: manifest.bytes,
    ranges: false,
  };
}

/**
 * Returns the tags after `last`, at most `n`, with a link to the next page (distribution-spec,
 * "Listing Tags").
 */
function tagsAnswer(name: string, query: URLSearchParams, tags: readonly string[]): Answer {
  const last = query.get('last');
  const remaining = last === null ? tags : tags.filter((tag) => tag > last);
  const limit = query.get('n');
  const page = limit !== null && /^\d{1,9}$/.test(limit) ? remaining.slice(0, Number(limit)) : remaining;
  const end = page.at(-1);
  const more = end !== undefined && page.length < remaining.length;
  const next = more ? `/v2/${name}/tags/list?n=${page.length}&last=${encodeURIComponent(end)}` : '';
  return jsonAnswer(200, { name, tags: page }, more ? { Link: `<${next}>; rel="next"` } : {});
}

/** Returns an answer with an error body of the distribution spec. */
export function errorAnswer(
  status: number,
  code: RegistryErrorCode,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return jsonAnswer(status, { errors: [{ code, message, detail: null }] }, headers);
}

/** Returns an answer with a JSON body. */
export function jsonAnswer(
  status: number,
  value: unknown,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return {
    status,
    headers: { 'Content-Type': 'application/json', ...headers },
    body: Buffer.from(JSON.stringify(value)),
    ranges: false,
  };
}

/** The answer to send for one request. */
export interface Transmission {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Answer['body'];
  /** Bytes [start, end) of the body are sent. */
  readonly start: number;
  readonly end: number;
  readonly flipByteAt: number | undefined;
  /** Maximum rate of this body. */
  readonly bytesPerSecond: number | undefined;
  /**
   * How the answer breaks off at `end`, if it does; `beforeHeaders`: not even the headers are sent.
   */
  readonly cut: { readonly how: 'close' | 'stall'; readonly beforeHeaders: boolean } | undefined;
  /** The satisfiable range of the request, before the fault is applied. */
  readonly requested: BlobRange | undefined;
}

/** Applies the range of a request and then a fault to an answer. */
export function shapeAnswer(
  answer: Answer,
  request: {
    readonly method: string;
    readonly range: string | undefined;
    readonly ifRange: string | undefined;
  },
  action: FaultAction | undefined,
): Transmission {
  const sizeBytes = bodySizeBytes(answer.body);
  const honoursRange =
    answer.ranges &&
    request.method === 'GET' &&
    (request.ifRange === undefined || request.ifRange === answer.headers['ETag']);
  const requested = honoursRange ? parseRange(request.range, sizeBytes) : undefined;
  if (requested === 'unsatisfiable') {
    const headers = { 'Content-Range': `bytes */${sizeBytes}` };
    return shapeAnswer(errorAnswer(416, 'RANGE_INVALID', 'no such bytes', headers), request, action);
  }
  const ranged = rangeToSend(action, requested);
  const { start, end } = ranged ?? { start: 0, end: sizeBytes };
  return {
    status: ranged === undefined ? answer.status : 206,
    headers: {
      'Content-Length': String(end - start),
      ...answer.headers,
      ...(action !== undefined && 'withHeaders' in action ? action.withHeaders : {}),
      ...(ranged === undefined ? {} : { 'Content-Range': statedRange(action, ranged, sizeBytes) }),
    },
    body: answer.body,
    ...cutBody(action, start, request.method === 'HEAD' ? start : end),
    flipByteAt: action !== undefined && 'flipByteAt' in action ? action.flipByteAt : undefined,
    bytesPerSecond: action !== undefined && 'drip' in action ? action.drip.bytesPerSecond : undefined,
    requested,
  };
}

function rangeToSend(
  action: FaultAction | undefined,
  requested: BlobRange | undefined,
): BlobRange | undefined {
  if (action === undefined || requested === undefined) return requested;
  if ('ignoreRange' in action) return undefined;
  return 'shortRange' in action
    ? { start: requested.start, end: Math.min(requested.end, requested.start + action.shortRange) }
    : requested;
}

function statedRange(action: FaultAction | undefined, range: BlobRange, sizeBytes: number): string {
  return action !== undefined && 'wrongContentRange' in action
    ? action.wrongContentRange
    : contentRange(range, sizeBytes);
}

function cutBody(
  action: FaultAction | undefined,
  start: number,
  end: number,
): Pick<Transmission, 'start' | 'end' | 'cut'> {
  const cut = cutOf(action);
  // A body that is shorter than the cut is sent completely.
  if (cut === undefined || (cut.bytes > 0 && start + cut.bytes >= end)) return { start, end, cut: undefined };
  return { start, end: start + cut.bytes, cut: { how: cut.how, beforeHeaders: cut.bytes === 0 } };
}

function cutOf(action: FaultAction | undefined): { how: 'close' | 'stall'; bytes: number } | undefined {
  if (action === undefined) return undefined;
  if ('closeAfterBytes' in action) return { how: 'close', bytes: action.closeAfterBytes };
  if ('drip' in action && action.drip.closeAfterBytes !== undefined) {
    return { how: 'close', bytes: action.drip.closeAfterBytes };
  }
  if ('stallAfterBytes' in action) return { how: 'stall', bytes: action.stallAfterBytes };
  return undefined;
}

const SINGLE_RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/;

/**
 * Parses a Range header for a body of `sizeBytes` (RFC 9110, 14.2).
 * @returns 'unsatisfiable' for status 416; undefined for a header that the server ignores because
 *   it is absent, malformed or has several ranges
 */
export function parseRange(
  header: string | undefined,
  sizeBytes: number,
): BlobRange | 'unsatisfiable' | undefined {
  const parts = header === undefined ? null : SINGLE_RANGE.exec(header);
  if (parts === null) return undefined;
  const [, first = '', last = ''] = parts;
  if (first === '') {
    if (last === '') return undefined;
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? 'unsatisfiable' : { start: sizeBytes - length, end: sizeBytes };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= sizeBytes) return 'unsatisfiable';
  return { start, end: last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes) };
}

/**
 * Returns the Content-Range of a range in a body of `sizeBytes` (RFC 9110, 14.4), whose end is
 * inclusive.
 */
export function contentRange(range: BlobRange, sizeBytes: number): string {
  return `bytes ${range.start}-${range.end - 1}/${sizeBytes}`;
}
