import type { Digest } from '../format/digest.js';
import type { MetadataPart } from '../pool/messages.js';
import type { PackId } from '../store/paths.js';
import type { Extent } from './assembly.js';
import type { PullContext } from './context.js';
import type { ChunkedLayer } from './layer.js';

/** A tar-split whose digest is known. */
export type TarSplitPart = MetadataPart & { readonly digest: Digest };

/** Has these ranges of the tar (pairs [start, end), all tar-split's) written to a pack, one after the other. */
export async function writeInline(
  context: PullContext,
  layer: ChunkedLayer,
  tarSplit: TarSplitPart,
  ranges: Float64Array,
): Promise<Extent> {
  const task = { task: 'write-inline', blob: layer.blob, tarSplit, ranges } as const;
  const { pack, packOffset, lengthBytes } = await context.metadata.with(tarSplit.uncompressedBytes, () =>
    context.support.run(task),
  );
  context.packs.add(pack as PackId);
  return { pack: pack as PackId, offset: packOffset, lengthBytes };
}
