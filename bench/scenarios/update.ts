import { type Bench, recordWanted, wants, withStore } from '../context.js';
import { type LayerToc, readLayerTocs } from '../layer-toc.js';
import { runPull } from '../pull-process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** Row 6: version 2 onto a store that has version 1. Bytes repeat exactly: one run is enough. */
export async function update(bench: Bench): Promise<void> {
  if (!wants(bench, 6)) return;
  const { workDir, files } = bench.options;
  const first = await treeSample(workDir, files, 1);
  const second = await treeSample(workDir, files, 2);
  const least = leastBytes(await readLayerTocs(first), await readLayerTocs(second));
  process.stderr.write('update\n');
  await withServer({ layout: first.layoutDir }, ({ host }) =>
    withStore(bench, async (store) => {
      await runPull({ host, ref: first.ref, store });
      const { result, wallSeconds, cpuSeconds } = await runPull({ host, ref: second.ref, store });
      const note = [
        `${(result.fetchedBytes / 1e6).toFixed(1)} of ${(least / 1e6).toFixed(1)} MB`,
        `${result.requests} requests`,
        `${wallSeconds.toFixed(2)} s, ${cpuSeconds.toFixed(2)} CPU s`,
      ].join(', ');
      recordWanted(bench, '6', [result.fetchedBytes / least], note);
    }),
  );
}

/** Compressed bytes of the contents that are nowhere in `before`, each once with the frame before it, and the metadata. */
function leastBytes(before: readonly LayerToc[], after: readonly LayerToc[]): number {
  const held = new Set(before.flatMap(({ chunks }) => chunks.map(({ digest }) => digest)));
  const heldLayers = new Set(before.map(({ diffId }) => diffId));
  let bytes = 0;
  for (const { diffId, chunks, metadataBytes } of after) {
    if (heldLayers.has(diffId)) continue;
    bytes += metadataBytes;
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
  }
  return bytes;
}
