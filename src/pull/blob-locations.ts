import { fileURLToPath } from 'node:url';
import { damagedHint } from '../files/layout-error.js';
import { type ErrorCode, inLayer, PullError } from '../format/error.js';
import { type Descriptor, leavesSizeOut, MAX_BLOB_BYTES } from '../format/manifest.js';
import { listSome, shorten } from '../format/text.js';
import type { BlobSource, MeasureBlobResult } from '../pool/messages.js';
import { foreignHost } from '../registry/endpoint-choice.js';
import { isUsableHost } from '../registry/urls.js';
import type { PullContext } from './pull-context.js';
import type { PullEvent } from './pull-events.js';

/** Where a foreign layer failed, another of its places may do. */
const TRY_NEXT_PLACE: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'redirect-refused',
  'answer-unexpected',
  'digest-mismatch',
]);

/** The addresses of a foreign layer that can be asked. @throws PullError `unsupported` when there is none */
export function foreignUrlsOf({ digest, urls = [] }: Descriptor): string[] {
  const usable = urls.filter(
    (url) => /^https?:\/\//i.test(url) && URL.canParse(url) && isUsableHost(new URL(url)),
  );
  if (usable.length > 0) return usable;
  throw new PullError('unsupported', `layer ${digest} lies at no http or https address`, { layer: digest });
}

/** A host that can exist has no more. */
const MAX_SHOWN_HOST_LENGTH = 259;

/** The addresses of a foreign layer without paths and queries, which can be secrets. */
export function hostsOf({ urls = [] }: Pick<Descriptor, 'urls'>): string {
  const hosts = urls.map((url) => (URL.canParse(url) ? new URL(url).host : 'no valid address'));
  return listSome([...new Set(hosts)].map((host) => shorten(host, MAX_SHOWN_HOST_LENGTH)));
}

/** The hint where all bytes of a blob came and are another one: what to do depends on the place that it was read from. */
export function wrongBytesHint({ url, anonymous }: Pick<BlobSource, 'anonymous' | 'url'>): string {
  const { protocol, host } = new URL(url);
  if (protocol === 'file:') return damagedHint(fileURLToPath(url));
  if (anonymous === true)
    return `${host} has other bytes for this layer than the image names: ask whoever published the image`;
  return 'what the registry or a proxy before it holds is damaged: ask whoever runs it, or take the image from another one';
}

/**
 * What `from` resolves to at the first of these places that serves. `again`: a place before this one has failed.
 * @throws what `from` throws at the last place, or where another place would not do
 */
export async function fromAnyUrl<T>(
  urls: readonly string[],
  emit: (event: PullEvent) => void,
  from: (url: string, again: boolean) => Promise<T>,
): Promise<T> {
  let last: unknown;
  for (const url of urls) {
    if (last instanceof PullError) {
      emit({ event: 'warning', message: `${last.message}; trying another place` });
    }
    try {
      return await from(url, last !== undefined);
    } catch (error) {
      if (!(error instanceof PullError && TRY_NEXT_PLACE.has(error.code))) throw error;
      last = error;
    }
  }
  throw last;
}

/** Whether the first place that is asked for a blob, its endpoint or its host, is known to give no ranges. */
export function ignoresRanges(
  { endpoints }: PullContext,
  { anonymous, url }: Pick<BlobSource, 'anonymous' | 'url'>,
): boolean {
  return endpoints.has(anonymous === true ? foreignHost(url) : 0, 'ranges-ignored');
}

/** A blob and the places that have it. */
interface Measurable {
  readonly blob: Omit<BlobSource, 'url'>;
  readonly urls: readonly string[];
}

/**
 * What the registry says of the sizes of those blobs whose descriptors leave them out, and what asking cost; undefined for all
 * others. As many are asked for at a time as the registry puts up with. The digest decides in the end whether the bytes are
 * right.
 * @throws PullError as `fetchRange`; `metadata-malformed` for a size beyond the limit of a blob
 */
export async function measureBlobs(
  context: PullContext,
  blobs: readonly Measurable[],
): Promise<ReadonlyArray<MeasureBlobResult | undefined>> {
  const results: Array<MeasureBlobResult | undefined> = blobs.map(() => undefined);
  const rows = [...blobs.keys()].filter((row) => leavesSizeOut(blobs[row]!.blob));
  const next = async (): Promise<void> => {
    for (let row = rows.shift(); row !== undefined; row = rows.shift()) {
      results[row] = await measureBlob(context, blobs[row]!);
    }
  };
  const askers = Array.from({ length: Math.min(rows.length, context.concurrency.limit) }, next);
  await context.stop.guard(Promise.all(askers));
  return results;
}

async function measureBlob(context: PullContext, { blob, urls }: Measurable): Promise<MeasureBlobResult> {
  context.patience.asking(1);
  try {
    const result = await fromAnyUrl(urls, context.emit, (url) =>
      context.support.run({ task: 'measure-blob', blob: { ...blob, url } }),
    );
    if (result.sizeBytes <= MAX_BLOB_BYTES) return result;
    const problem = `the registry says it has ${result.sizeBytes} bytes; at most ${MAX_BLOB_BYTES} are accepted for a blob`;
    throw new PullError(
      'metadata-malformed',
      `the manifest states no size of blob ${blob.digest}, and ${problem}`,
    );
  } catch (error) {
    throw inLayer(error, blob.digest);
  } finally {
    context.patience.asking(-1);
  }
}
