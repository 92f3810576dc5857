import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { decompress } from '@mongodb-js/zstd';
import { floorPieces } from './floor-pieces.js';
import { receiveBlob } from './floor-receive.js';
import { type LayerToc, readLayerTocs, readRange } from './layer-toc.js';
import type { Sample } from './sample.js';
import { type Cost, Stopwatch } from './stopwatch.js';

/** What the process is told, as JSON in its first argument. */
export interface FloorOptions {
  readonly sample: Sample;
  readonly host: string;
  /** An empty directory for the files that are written. */
  readonly directory: string;
  /** How many files the bytes are spread over: the pull writes one a worker. */
  readonly files: number;
}

/** What the same work costs, part by part, each alone. */
export interface Floor {
  readonly decode: Cost;
  readonly hash: Cost;
  readonly write: Cost;
  readonly receive: Cost;
}

const options = JSON.parse(process.argv[2] ?? '') as FloorOptions;
const watches = {
  decode: new Stopwatch(),
  hash: new Stopwatch(),
  write: new Stopwatch(),
  receive: new Stopwatch(),
};
const files = Array.from({ length: options.files }, (_, i) =>
  openSync(join(options.directory, `${i}`), 'wx'),
);

const layers = await readLayerTocs(options.sample);
for (const { digest } of layers) {
  watches.receive.bytes += await watches.receive.wait(() => receiveBlob(options.host, digest));
}
for (const layer of layers) await unpack(layer);
watches.write.turn(() => {
  for (const file of files) fsyncSync(file);
});
for (const file of files) closeSync(file);
const costs = Object.entries(watches).map(([name, watch]) => [name, watch.cost] as const);
process.stdout.write(`${JSON.stringify(Object.fromEntries(costs))}\n`);

/** Decodes, hashes and writes one layer, a piece at a time: nothing is read back, all is warm in the caches. */
async function unpack(layer: LayerToc): Promise<void> {
  const whole = createHash('sha256');
  for (const [i, { blobStart, blobEnd }] of floorPieces(layer).entries()) {
    const frames = readRange(layer.blobPath, blobStart, blobEnd);
    const bytes = await watches.decode.wait(() => decompress(frames));
    watches.hash.turn(() => whole.update(bytes));
    watches.write.turn(() => writeSync(files[i % files.length]!, bytes));
    for (const name of ['decode', 'hash', 'write'] as const) watches[name].bytes += bytes.length;
  }
  const diffId = `sha256:${whole.digest('hex')}`;
  if (diffId !== layer.diffId) throw new Error(`the floor decoded ${diffId} instead of ${layer.diffId}`);
}
