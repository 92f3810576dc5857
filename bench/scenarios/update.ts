import { type Bench, recordWanted, wants, withStore } from '../context.js';
import { type LayerToc, readLayerTocs } from '../layer-toc.js';
import { runPull } from '../pull-process.js';
import { type SampleFormat, treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Rows 6 and 16: version 2 onto a store that has version 1. Bytes repeat exactly: one run is enough. */
export async function update(bench: Bench): Promise<void> {
  if (wants(bench, 6)) await measure(bench, '6', 'zstd:chunked');
  if (!wants(bench, 16)) return;
  await measure(bench, '16a', 'zstd:chunked-old');
  await measure(bench, '16b', 'estargz');
}

async function measure(bench: Bench, id: string, format: SampleFormat): Promise<void> {
  const { workDir, files } = bench.options;
  const first = await treeSample(workDir, files, 1, format);
  const second = await treeSample(workDir, files, 2, format);
  const least = leastBytes(await readLayerTocs(first), await readLayerTocs(second), format);
  process.stderr.write(`update of ${format}\n`);
  await withServer({ layout: first.layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref: first.ref, store });
      const { result, wallSeconds, cpuSeconds } = await runPull({ host, ref: second.ref, store });
      const note = [
        `${(result.fetchedBytes / 1e6).toFixed(1)} of ${(least / 1e6).toFixed(1)} MB`,
        `${result.requests} requests`,
        `${wallSeconds.toFixed(2)} s, ${cpuSeconds.toFixed(2)} CPU s`,
      ].join(', ');
      recordWanted(bench, id, [result.fetchedBytes / least], note);
    }),
  );
}

/**
 * Compressed bytes that an update cannot do without: the metadata, contents that are nowhere in `before`, each once, and
 * the frames with headers: those before such contents where tar-split has the headers, all of them where it is the frames alone
 * that have them. Where a content's frame goes on with the headers behind it, only chunks before its last can be done without.
 */
function leastBytes(before: readonly LayerToc[], after: readonly LayerToc[], format: SampleFormat): number {
  const held = new Set(before.flatMap(({ chunks }) => chunks.map(({ digest }) => digest)));
  const heldLayers = new Set(before.map(({ diffId }) => diffId));
  const changed = after.filter(({ diffId }) => !heldLayers.has(diffId));
  const least = format === 'zstd:chunked' ? leastWithTarSplit : leastWithoutTarSplit;
  return changed.reduce((sum, layer) => sum + layer.metadataBytes + least(layer, held), 0);
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
