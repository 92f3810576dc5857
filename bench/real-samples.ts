import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { TAR_END, tarHeader, tarPadding } from '../src/format/tar-writer.js';
import { type Bench, newPath } from './context.js';
import type { RealTars } from './real-files.js';
import { LAYER_SHARES, type Sample, type SampleFormat, smallFilesTars, tarSample } from './sample.js';

/** Small files for each 2 GB of others. */
const SMALL_FILES = 120_000;
const BYTES_OF_SMALL_FILES = 2e9;

/** What layers are made of: the chosen files as one layer or as four, small files, or one file of noise. */
export type RealContent = 'one' | 'four' | 'small' | 'noise';

/** Runs `action` with a sample that is removed afterwards. */
export async function withSample(
  bench: Bench,
  { tars, format }: { readonly tars: RealContent; readonly format: SampleFormat },
  files: RealTars,
  action: (sample: Sample) => Promise<void>,
): Promise<void> {
  const directory = newPath(bench);
  mkdirSync(directory);
  const prefix = join(directory, 'tar-');
  const { realBytes = 0 } = bench.options;
  const makers: Readonly<Record<RealContent, () => string[]>> = {
    one: () => files.write(prefix, [1], 1),
    four: () => files.write(prefix, LAYER_SHARES, 1),
    small: () => smallFilesTars(prefix, Math.round((realBytes / BYTES_OF_SMALL_FILES) * SMALL_FILES)),
    noise: () => [writeNoiseTar(`${prefix}0`, realBytes)],
  };
  try {
    const paths = makers[tars]();
    const sample = await tarSample(join(directory, 'layout'), 'v1', paths, format);
    for (const path of paths) rmSync(path);
    await action(sample);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** The tar of one file that nothing could compress. @returns its path */
function writeNoiseTar(path: string, sizeBytes: number): string {
  const tar = openSync(path, 'wx');
  const item = {
    type: '0',
    name: 'model.bin',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    mtimeNanos: 0,
  } as const;
  writeSync(tar, tarHeader({ ...item, sizeBytes }));
  for (let left = sizeBytes; left > 0; left -= 2 ** 20) writeSync(tar, randomBytes(Math.min(left, 2 ** 20)));
  writeSync(tar, Buffer.concat([tarPadding(sizeBytes), TAR_END]));
  closeSync(tar);
  return path;
}
