import type { LayerToc } from './layer-toc.js';
import type { SampleFormat } from './sample.js';

/**
 * Compressed bytes that an update cannot do without: the metadata, contents that are nowhere in `before`, each once, and
 * the frames with headers: those before such contents where tar-split has the headers, all of them where it is the frames alone
 * that have them. Where a content's frame goes on with the headers behind it, only chunks before its last can be done without.
 */
export function leastBytes(
  before: readonly LayerToc[],
  after: readonly LayerToc[],
  format: SampleFormat,
): number {
  const cached = new Set(before.flatMap(({ chunks }) => chunks.map(({ digest }) => digest)));
  const cachedLayers = new Set(before.map(({ diffId }) => diffId));
  const changed = after.filter(({ diffId }) => !cachedLayers.has(diffId));
  const least = format === 'zstd:chunked' ? leastWithTarSplit : leastWithoutTarSplit;
  return changed.reduce((sum, layer) => sum + layer.metadataBytes + least(layer, cached), 0);
}

function leastWithTarSplit({ chunks }: LayerToc, held: Set<string>): number {
  let bytes = 0;
  let gapStart = 0;
  let contentStart = 0;
  let begins = true;
  for (const { digest, blobStart, blobEnd, endsContent } of chunks) {
    if (begins) contentStart = gapStart;
    begins = endsContent;
    if (!endsContent) continue;
    gapStart = blobEnd;
    if (held.has(digest)) continue;
    held.add(digest);
    bytes += blobEnd - Math.min(contentStart, blobStart);
  }
  return bytes;
}

function leastWithoutTarSplit({ chunks, dataEnd, gapsWithin }: LayerToc, held: Set<string>): number {
  let bytes = dataEnd;
  for (const { digest, blobStart, blobEnd, endsContent } of chunks) {
    if (held.has(digest) && !(gapsWithin && endsContent)) bytes -= blobEnd - blobStart;
    if (endsContent) held.add(digest);
  }
  return bytes;
}
