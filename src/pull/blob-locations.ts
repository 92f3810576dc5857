import { fileURLToPath } from 'node:url';
import { damagedHint } from '../files/storage-error.js';
import { type ErrorCode, inLayer, listSome, PullError, shorten } from '../format/error.js';
import { type Descriptor, leavesSizeOut, MAX_BLOB_BYTES } from '../format/manifest.js';
import type { MeasureBlobResult } from '../pool/messages.js';
import { foreignHost } from '../registry/endpoint-state.js';
import type { BlobSource } from '../registry/range-client.js';
import { isUsableHost } from '../registry/transport.js';
import type { PullContext } from './pull-context.js';
import type { PullEvent } from './pull-events.js';

/** Errors at one location of a blob after which the next one is tried. */
const TRY_NEXT_CODES: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'redirect-refused',
  'answer-unexpected',
  'digest-mismatch',
]);

/** The usable URLs of a foreign layer. @throws PullError `unsupported` when there is none */
export function foreignUrlsOf({ digest, urls = [] }: Descriptor): string[] {
  const usable = urls.filter(
    (url) => /^https?:\/\//i.test(url) && URL.canParse(url) && isUsableHost(new URL(url)),
  );
  if (usable.length > 0) return usable;
  throw new PullError('unsupported', `layer ${digest} has no usable http or https URL`, { layer: digest });
}

/** No valid host is longer. */
const MAX_SHOWN_HOST_LENGTH = 259;

/** The hosts of a foreign layer, as paths and queries can be secrets. */
export function hostsOf({ urls = [] }: Pick<Descriptor, 'urls'>): string {
  const hosts = urls.map((url) => (URL.canParse(url) ? new URL(url).host : 'no valid address'));
  return listSome([...new Set(hosts)].map((host) => shorten(host, MAX_SHOWN_HOST_LENGTH)));
}

/**
 * The hint for a blob that arrived in full and has another digest; depends on where it was read
 * from.
 */
export function wrongBytesHint({ url, anonymous }: Pick<BlobSource, 'anonymous' | 'url'>): string {
  const { protocol, host } = new URL(url);
  if (protocol === 'file:') return damagedHint(fileURLToPath(url));
  if (anonymous === true)
    return `${host} has other bytes for this layer than the image states: report it to the publisher of the image`;
  return 'the blob is damaged in the registry or a proxy: report it to the operator, or pull from another registry';
}

/**
 * Calls `fetch` with one URL after the other until it succeeds; `isRetry` after the first.
 * @throws what `fetch` throws for the last URL, or an error that the next one would not change
 */
export async function fromAnyUrl<T>(
  urls: readonly string[],
  emit: (event: PullEvent) => void,
  fetch: (url: string, isRetry: boolean) => Promise<T>,
): Promise<T> {
  let last: unknown;
  for (const url of urls) {
    if (last instanceof PullError) {
      emit({ event: 'warning', message: `${last.message}; trying the next URL` });
    }
    try {
      return await fetch(url, last !== undefined);
    } catch (error) {
      if (!(error instanceof PullError && TRY_NEXT_CODES.has(error.code))) throw error;
      last = error;
    }
  }
  throw last;
}

/** Whether the first endpoint or host that is asked for a blob is known to ignore ranges. */
export function ignoresRanges(
  { endpoints }: PullContext,
  { anonymous, url }: Pick<BlobSource, 'anonymous' | 'url'>,
): boolean {
  return endpoints.has(anonymous === true ? foreignHost(url) : 0, 'ranges-ignored');
}

/** A blob and its URLs. */
interface Located {
  readonly blob: Omit<BlobSource, 'url'>;
  readonly urls: readonly string[];
}

/**
 * Requests the sizes of those blobs whose descriptors omit them, as many at a time as the
 * concurrency limit allows. Undefined for all others. The digest is verified later.
 * @throws PullError as `fetchRange`; `metadata-malformed` for a size beyond the limit of a blob
 */
export async function measureBlobs(
  context: PullContext,
  blobs: readonly Located[],
): Promise<ReadonlyArray<MeasureBlobResult | undefined>> {
  const results: Array<MeasureBlobResult | undefined> = blobs.map(() => undefined);
  const rows = [...blobs.keys()].filter((row) => leavesSizeOut(blobs[row]!.blob));
  const next = async (): Promise<void> => {
    for (let row = rows.shift(); row !== undefined; row = rows.shift()) {
      results[row] = await measureBlob(context, blobs[row]!);
    }
  };
  const requests = Array.from({ length: Math.min(rows.length, context.concurrency.limit) }, next);
  await context.stop.guard(Promise.all(requests));
  return results;
}

async function measureBlob(context: PullContext, { blob, urls }: Located): Promise<MeasureBlobResult> {
  context.retries.countRequests(1);
  try {
    const result = await fromAnyUrl(urls, context.emit, (url) =>
      context.support.run({ task: 'measure-blob', blob: { ...blob, url } }),
    );
    if (result.sizeBytes <= MAX_BLOB_BYTES) return result;
    const problem = `the registry states ${result.sizeBytes} bytes; the limit for a blob is ${MAX_BLOB_BYTES}`;
    throw new PullError(
      'metadata-malformed',
      `the manifest states no size for blob ${blob.digest}, and ${problem}`,
    );
  } catch (error) {
    throw inLayer(error, blob.digest);
  } finally {
    context.retries.countRequests(-1);
  }
}
