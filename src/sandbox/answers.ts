import { type Digest, isDigest } from '../format/digest.js';
import type { Body } from './body.js';
import type { LayoutReader } from './layout-reader.js';

/** A whole answer, before ranges and faults. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Body;
  /** Whether a Range header counts. */
  readonly ranges: boolean;
}

/** What a path of the registry asks for (distribution-spec, "Endpoints"). */
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
/** What clients and Docker's registry hold names to. */
const MAX_NAME_LENGTH = 255;

/** What `path` asks for, or undefined for a path that is none of the registry's. */
export function parseTarget(path: string): Target | undefined {
  if (path === '/v2/' || path === '/v2') return { kind: 'base' };
  const [, name = '', rest = ''] = /^\/v2\/(.+)\/((?:manifests|blobs)\/[^/]+|tags\/list)$/.exec(path) ?? [];
  if (rest === 'tags/list') return { kind: 'tags', name };
  if (rest.startsWith('manifests/')) return { kind: 'manifest', name, reference: rest.slice(10) };
  if (rest.startsWith('blobs/')) return { kind: 'blob', name, digest: rest.slice(6) };
  return undefined;
}

/** The answer of a read-only registry that holds the layout's images under every repository name. */
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

/** The blob of this digest, whole; 404 without it. */
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

/** The tags behind `last`, `n` at most, with the link to the next page (distribution-spec, "Listing Tags"). */
function tagsAnswer(name: string, query: URLSearchParams, tags: readonly string[]): Answer {
  const last = query.get('last');
  const rest = last === null ? tags : tags.filter((tag) => tag > last);
  const limit = query.get('n');
  const page = limit !== null && /^\d{1,9}$/.test(limit) ? rest.slice(0, Number(limit)) : rest;
  const end = page.at(-1);
  const more = end !== undefined && page.length < rest.length;
  const next = more ? `/v2/${name}/tags/list?n=${page.length}&last=${encodeURIComponent(end)}` : '';
  return jsonAnswer(200, { name, tags: page }, more ? { Link: `<${next}>; rel="next"` } : {});
}

/** An answer with the spec's error body. */
export function errorAnswer(
  status: number,
  code: RegistryErrorCode,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return jsonAnswer(status, { errors: [{ code, message, detail: null }] }, headers);
}

/** An answer with a JSON body. */
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
