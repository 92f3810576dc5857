import { inLayer, PullError } from '../format/error.js';
import { leavesSizeOut, MAX_BLOB_BYTES } from '../format/manifest.js';
import type { BlobSource, MeasureBlobResult } from '../pool/messages.js';
import type { PullContext } from './context.js';
import { fromAnyUrl } from './foreign.js';

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
