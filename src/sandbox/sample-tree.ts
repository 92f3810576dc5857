import { TAR_END, tarHeader, tarPadding } from '../format/tar-writer.js';
import { contentPieces, createPrng, type Prng, randomWord, type SampleContent } from './sample-content.js';

/** Options of a generated tree; equal options give equal bytes. */
export interface TreeOptions {
  readonly seed: number;
  /** Regular files of all layers, without links and directories. */
  readonly fileCount: number;
  /** Share of the files in each layer, in order. */
  readonly layerShares: readonly number[];
  /** 2 is the same image one release later: see planChanges. */
  readonly version: 1 | 2;
}

/** An entry of a layer. */
export interface TreeItem {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
  readonly path: string;
  /** Target of a link. */
  readonly target: string;
  /** Content of a file. */
  readonly content: SampleContent;
  readonly mode: number;
}

/** Four layers, as images have them: a large base with smaller ones on top. */
export const DEFAULT_LAYER_SHARES = [50, 30, 15, 5] as const;

/** Half of the files are smaller; with this spread the mean is about 50 KiB. */
const MEDIAN_BYTES = 4096;
const SPREAD_LOG2 = 3.4;
const MAX_FILE_BYTES = 32 * 2 ** 20;

/** In a hundred files: empty ones and copies of an earlier one; and links in addition. */
const EMPTY_PERCENT = 2;
const COPY_PERCENT = 3;
const SYMLINK_PERCENT = 4;
const HARDLINK_PERCENT = 1;

/** The names of each layer have their own stream of random numbers. */
const FIRST_NAME_STREAM = 100;

const NO_CONTENT: SampleContent = { kind: 'text', seed: 0, sizeBytes: 0 };

/** A fixed date, so that equal options give equal digests; version 2 is a day younger. */
const MTIME_SECONDS = 1_700_000_000;
const DAY_SECONDS = 86_400;

const TAR_TYPES = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** Yields the tars of a generated tree, one for each share, as pieces. */
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

/**
 * Returns the entries of every layer. Layers have separate root directories; copies may be of files
 * in other layers.
 */
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
    // Names have their own stream and are drawn for removed files too, so that version 2 has the
    // same paths.
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

/**
 * Returns a log-normal size. The sum of twelve uniform numbers approximates a normal one and is
 * exact on every machine.
 */
function sampleSize(prng: Prng): number {
  let normal = -6;
  for (let die = 0; die < 12; die += 1) normal += prng.unit();
  return Math.min(MAX_FILE_BYTES, 1 + Math.floor(MEDIAN_BYTES * powerOf2(normal * SPREAD_LOG2)));
}

/**
 * Computes 2 ** exponent with square roots: Math.pow may differ in the last digit between Node
 * versions.
 */
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

/** Returns a file and the links to it. A removed file has no hard link, but its symlink stays. */
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

/** Root directories of the layers; further layers get generated ones. */
const ROOTS = ['usr/', 'opt/runtime/', 'app/node_modules/', 'app/src/'];

/** Average number of files in a directory, as in a /usr of 20,000 files. */
const FILES_PER_DIRECTORY = 12;

/** Keeps paths below ustar's 255 bytes; images rarely have deeper ones. */
const MAX_DEPTH = 9;

const TEXT_ENDINGS = ['.js', '.py', '.h', '.txt', '.json', '.md', '.html', ''];
const NOISE_ENDINGS = ['.so', '.bin', '.gz', '.png', '.pyc', ''];

/** Returns the directories of a layer with a trailing slash, parents first. */
function directoryNames(layer: number, fileCount: number, prng: Prng): string[] {
  const root = ROOTS[layer] ?? `srv/layer${layer}/`;
  const steps = root.split('/').slice(0, -1);
  const names = new Set(steps.map((_, depth) => `${steps.slice(0, depth + 1).join('/')}/`));
  // Files and new directories go to the layer's root or below it.
  const open = [root];
  for (let left = Math.floor(fileCount / FILES_PER_DIRECTORY); left > 0; left -= 1) {
    const parent = open[prng.below(open.length)]!;
    const plain = `${parent}${randomWord(prng)}-${randomWord(prng)}/`;
    const name = names.has(plain) ? `${parent}${left.toString(36)}/` : plain;
    names.add(name);
    if (name.split('/').length <= MAX_DEPTH) open.push(name);
  }
  return [...names].sort();
}

function fileName(kind: 'text' | 'noise', index: number, prng: Prng): string {
  const endings = kind === 'text' ? TEXT_ENDINGS : NOISE_ENDINGS;
  return `${randomWord(prng)}-${index.toString(36)}${endings[prng.below(endings.length)]!}`;
}

/** The change of one file in version 2. */
interface Change {
  readonly content: SampleContent;
  readonly isGone: boolean;
  /** A new file next to it. */
  readonly added: SampleContent | undefined;
}

/** Like an update of a distribution: few files, and mostly large ones. */
const CHANGED_SHARE = 0.03;
const CHANGED_BYTES_SHARE = 0.1;
const GONE_SHARE = 0.005;

/** The stream of random numbers of version 2. */
const CHANGES_STREAM = 50;

/**
 * Returns the change of each file in version 2: 3 % changed (about a tenth of the bytes), 0.5 %
 * new, 0.5 % removed.
 */
function planChanges(contents: readonly SampleContent[], seed: number): Change[] {
  const prng = createPrng(seed, CHANGES_STREAM);
  const order = shuffled(contents.length, prng);
  const few = Math.ceil(contents.length * GONE_SHARE);
  const gone = new Set(order.splice(0, few));
  const neighbours = new Set(order.splice(0, few));
  const changed = pickChanged(contents, order);
  return contents.map((content, index) => {
    const random = prng.next();
    return {
      content: changed.has(index) ? { ...content, seed: random } : content,
      isGone: gone.has(index),
      added: neighbours.has(index) ? { ...content, seed: random } : undefined,
    };
  });
}

/**
 * Picks half of the files at random, and the others by size, so that the changed bytes reach their
 * share.
 */
function pickChanged(contents: readonly SampleContent[], order: readonly number[]): Set<number> {
  const quota = Math.round(contents.length * CHANGED_SHARE);
  const half = Math.ceil(quota / 2);
  const sizeOf = (index: number) => contents[index]!.sizeBytes;
  const candidates = order.filter((index) => sizeOf(index) > 0);
  const picked = new Set(candidates.slice(0, half));
  let bytesLeft = CHANGED_BYTES_SHARE * contents.reduce((sum, content) => sum + content.sizeBytes, 0);
  for (const index of picked) bytesLeft -= sizeOf(index);
  for (const index of candidates.slice(half)) {
    if (picked.size >= quota) break;
    const targetBytes = bytesLeft / (quota - picked.size);
    if (sizeOf(index) < targetBytes / 2 || sizeOf(index) > targetBytes * 2) continue;
    picked.add(index);
    bytesLeft -= sizeOf(index);
  }
  return picked;
}

function shuffled(count: number, prng: Prng): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last -= 1) {
    const other = prng.below(last + 1);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
