import { TAR_END, tarHeader, tarPadding } from '../format/tar-writer.js';
import { createPrng, type Prng } from './prng.js';
import { type Change, planChanges } from './sample-changes.js';
import { contentPieces, type SampleContent } from './sample-content.js';
import { directoryNames, fileName } from './sample-names.js';

/** What decides a generated tree; equal options give equal bytes. */
export interface TreeOptions {
  readonly seed: number;
  /** Regular files, all layers together; links and directories come on top. */
  readonly fileCount: number;
  /** Share of the files that each layer holds, in order. */
  readonly layerShares: readonly number[];
  /** 2 is the same image one release later: see planChanges. */
  readonly version: 1 | 2;
}

/** One thing of a layer, in tar order. */
export interface TreeItem {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
  readonly path: string;
  /** Of a link. */
  readonly target: string;
  /** Of a file. */
  readonly content: SampleContent;
  readonly mode: number;
}

/** Four layers as images have them: a large base and ever smaller ones on top. */
export const DEFAULT_LAYER_SHARES = [50, 30, 15, 5] as const;

/** Half of the files are below 4 KiB; with this spread the mean is about 50 KiB. */
const MEDIAN_BYTES = 4096;
const SPREAD_LOG2 = 3.4;
const MAX_FILE_BYTES = 32 * 2 ** 20;

/** In a hundred files: empty ones, copies of an earlier one, and links on top. */
const EMPTY_PERCENT = 2;
const COPY_PERCENT = 3;
const SYMLINK_PERCENT = 4;
const HARDLINK_PERCENT = 1;

/** Each layer's names have a stream of random numbers. */
const FIRST_NAME_STREAM = 100;

const NO_CONTENT: SampleContent = { kind: 'text', seed: 0, sizeBytes: 0 };

/** Samples have a fixed date, so that equal options give equal digests; version 2 is a day younger. */
const MTIME_SECONDS = 1_700_000_000;
const DAY_SECONDS = 86_400;

const TAR_TYPES = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** The tars of a generated tree, one for each share, piece by piece. */
export function* treeTars(options: TreeOptions): Generator<Generator<Buffer>> {
  const mtimeSeconds = MTIME_SECONDS + (options.version - 1) * DAY_SECONDS;
  for (const items of planTree(options)) yield treeTar(items, mtimeSeconds);
}

function* treeTar(items: readonly TreeItem[], mtimeSeconds: number): Generator<Buffer> {
  for (const { type, path, target, content, mode } of items) {
    const { sizeBytes } = content;
    const ids = { uid: 0, gid: 0, mtimeSeconds, mtimeNanos: 0 };
    yield tarHeader({ type: TAR_TYPES[type], name: path, linkName: target, mode, sizeBytes, ...ids });
    yield* contentPieces(content);
    if (sizeBytes % 512 !== 0) yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

/** The items of every layer. Layers have roots of their own; a copy may repeat a file of another layer. */
export function planTree(options: TreeOptions): TreeItem[][] {
  const prng = createPrng(options.seed, 0);
  const contents = planContents(options.fileCount, prng);
  const layerOf = contents.map(() => pickLayer(options.layerShares, prng));
  const files: readonly Change[] =
    options.version === 1
      ? contents.map((content) => ({ content, isGone: false, added: undefined }))
      : planChanges(contents, options.seed);
  return options.layerShares.map((_, layer) => {
    const indexes = [...files.keys()].filter((index) => layerOf[index] === layer);
    // Names come from a stream of their own and are drawn for gone files, too: version 2 has the same paths.
    return planLayer(layer, indexes, files, createPrng(options.seed, FIRST_NAME_STREAM + layer));
  });
}

function planContents(count: number, prng: Prng): SampleContent[] {
  const contents: SampleContent[] = [];
  for (let index = 0; index < count; index += 1) {
    const dice = prng.below(100);
    const seed = prng.next();
    const kind = prng.below(3) < 2 ? 'text' : 'noise';
    const sizeBytes = dice < EMPTY_PERCENT ? 0 : sampleSize(prng);
    const isCopy = dice >= 100 - COPY_PERCENT && index > 0;
    contents.push(isCopy ? contents[prng.below(index)]! : { kind, seed, sizeBytes });
  }
  return contents;
}

/** A log-normal size: the sum of twelve uniform numbers is close enough to normal, and exact everywhere. */
function sampleSize(prng: Prng): number {
  let normal = -6;
  for (let die = 0; die < 12; die += 1) normal += prng.unit();
  return Math.min(MAX_FILE_BYTES, 1 + Math.floor(MEDIAN_BYTES * powerOf2(normal * SPREAD_LOG2)));
}

/** 2 to any power by square roots alone: Math.pow may differ in the last digit between Node versions. */
function powerOf2(exponent: number): number {
  let fraction = exponent - Math.floor(exponent);
  let power = 2 ** Math.floor(exponent);
  let root = 2;
  for (let bit = 0; bit < 24; bit += 1) {
    root = Math.sqrt(root);
    fraction *= 2;
    if (fraction < 1) continue;
    power *= root;
    fraction -= 1;
  }
  return power;
}

function pickLayer(shares: readonly number[], prng: Prng): number {
  let left = prng.unit() * shares.reduce((sum, share) => sum + share, 0);
  for (let layer = 0; layer < shares.length - 1; layer += 1) {
    left -= shares[layer]!;
    if (left < 0) return layer;
  }
  return shares.length - 1;
}

function planLayer(
  layer: number,
  indexes: readonly number[],
  files: readonly Change[],
  prng: Prng,
): TreeItem[] {
  const directories = directoryNames(layer, indexes.length, prng);
  const inside = new Map<string, TreeItem[]>(directories.map((path) => [path, []]));
  for (const index of indexes) {
    const directory = directories[prng.below(directories.length)]!;
    inside.get(directory)!.push(...planFile(files[index]!, index, directory, prng));
  }
  return directories.flatMap((path) => [
    { type: 'directory' as const, path, target: '', content: NO_CONTENT, mode: 0o755 },
    ...inside.get(path)!,
  ]);
}

/** A file and the links to it. A hard link goes with its file; a symlink may be left dangling. */
function planFile(file: Change, index: number, directory: string, prng: Prng): TreeItem[] {
  const name = fileName(file.content.kind, index, prng);
  const mode = prng.below(8) === 0 ? 0o755 : 0o644;
  const dice = prng.below(100);
  const path = `${directory}${name}`;
  const items: TreeItem[] = [];
  if (!file.isGone) items.push({ type: 'file', path, target: '', content: file.content, mode });
  if (file.added !== undefined) {
    items.push({ type: 'file', path: `${path}.new`, target: '', content: file.added, mode });
  }
  if (dice < HARDLINK_PERCENT && !file.isGone) {
    items.push({ type: 'hardlink', path: `${path}.same`, target: path, content: NO_CONTENT, mode });
  } else if (dice >= 100 - SYMLINK_PERCENT) {
    items.push({ type: 'symlink', path: `${path}.link`, target: name, content: NO_CONTENT, mode: 0o777 });
  }
  return items;
}
