import { formatBytes, formatCount } from '../../api/figures.js';
import {
  type ListedImage,
  listStore,
  pruneStore,
  removeImage,
  type StoreListing,
  verifyStore,
} from '../../api/store.js';
import { aboutImage, UsageError } from '../failure.js';
import { type Column, formatTable, jsonLine, printable } from '../format-text.js';
import { matchesGlob } from '../glob.js';
import type { OptionValues } from '../options.js';
import { storeOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';

const BLOB_COLUMNS: readonly Column[] = [{ title: 'UNFINISHED BLOB' }, { title: 'RECEIVED', numeric: true }];
const DAMAGE_COLUMNS = [{ title: 'LAYER' }, { title: 'DAMAGED' }, { title: 'IMAGES' }];

/** As for every command that finds bytes that do not match their digest. */
const DAMAGED_EXIT_CODE = 6;

/** What an action of `zpull store` works on. */
interface StoreArguments {
  readonly store: string;
  readonly image: string | undefined;
  readonly json: boolean;
  /** Shows a warning, unless `--quiet` is given. */
  readonly warn: (message: string) => void;
  readonly olderThanMs: number | undefined;
  readonly dryRun: boolean;
}

interface ActionSpec {
  readonly image: 'required' | 'optional' | 'none';
  /** Returns the exit code. */
  readonly run: (given: StoreArguments) => Promise<number>;
}

const ACTIONS: Readonly<Record<string, ActionSpec>> = {
  ls: { image: 'optional', run: runList },
  rm: { image: 'required', run: runRemove },
  prune: { image: 'none', run: runPrune },
  verify: { image: 'optional', run: runVerify },
  path: { image: 'none', run: runPath },
};

/** `zpull store ACTION [IMAGE]`. */
export async function runStore(
  [name = '', image]: readonly string[],
  options: OptionValues,
): Promise<number> {
  const action = ACTIONS[name]!;
  if (action.image === 'required' && image === undefined) {
    throw new UsageError(`zpull store ${name} needs IMAGE`, `write zpull store ${name} IMAGE`);
  }
  if (action.image === 'none' && image !== undefined) {
    throw new UsageError(`zpull store ${name} does not take "${image}"`, `write zpull store ${name}`);
  }
  for (const option of ['older-than', 'dry-run'] as const) {
    if (options[option] === undefined || name === 'prune') continue;
    throw new UsageError(`zpull store ${name} has no option --${option}`, 'it is for zpull store prune');
  }
  const olderThan = options['older-than'];
  const given: StoreArguments = {
    store: storeOf(options, process.env),
    image,
    json: options.json === true,
    warn: options.quiet === true ? () => {} : printWarning,
    olderThanMs: olderThan === undefined ? undefined : olderThan * 1000,
    dryRun: options['dry-run'] === true,
  };
  return image === undefined ? action.run(given) : aboutImage(image, () => action.run(given));
}

function printWarning(message: string): void {
  process.stderr.write(`zpull: warning: ${printable(message)}\n`);
}

/** `zpull store path`: prints the path even when nothing is there yet. */
async function runPath({ store, json }: StoreArguments): Promise<number> {
  process.stdout.write(json ? jsonLine({ store }) : `${store}\n`);
  return 0;
}

/** `zpull store ls [PATTERN]`: prints the images and what interrupted pulls left. */
async function runList({ store, image: pattern, json, warn }: StoreArguments): Promise<number> {
  const isWanted = (image: string, digest = ''): boolean =>
    pattern === undefined || namesOf(image, digest).some((name) => matchesGlob(pattern, name));
  const incomplete = (image: string, platform: string) => {
    if (!isWanted(image)) return;
    process.stderr.write(`zpull: ${printable(image)} for ${printable(platform)} is not complete any more\n`);
    process.stderr.write('hint: pull it again: zpull fetches only what is missing\n');
  };
  const listing = listStore({ store, warn, ...(!json && { incomplete }) });
  const images = listing.images.filter(({ image, digest }) => isWanted(image, digest));
  // No pattern matches a blob.
  const brokenOff = pattern === undefined ? listing.brokenOff : [];
  if (json) {
    process.stdout.write(jsonLine({ images, brokenOff }));
    return 0;
  }
  const columns = process.stdout.isTTY ? process.stdout.columns : undefined;
  process.stdout.write(imageTable(images, columns));
  if (brokenOff.length > 0) process.stdout.write(`\n${blobTable(brokenOff, columns)}`);
  return 0;
}

/** What a pattern may match: the full name, as docker shortens it, without its tag; the digest. */
function namesOf(image: string, digest: string): string[] {
  const short = image.replace(/^docker\.io\/(library\/)?/, '');
  const names = [image, short].flatMap((name) => [name, name.replace(/(:[^:/@]+)?(@.*)?$/, '')]);
  return [...names, digest];
}

const IMAGE: Column = { title: 'IMAGE' };
const DIGEST: Column = { title: 'DIGEST' };
const PLATFORM: Column = { title: 'PLATFORM' };
const SIZE: Column = { title: 'SIZE', numeric: true };
const SHARED: Column = { title: 'SHARED', numeric: true };
const LAST_USED: Column = { title: 'LAST USED' };

type ImageCell = readonly [column: Column, cell: (image: ListedImage) => string];

/** The widest tables first, each with its columns. */
const IMAGE_TABLES: readonly (readonly ImageCell[])[] = (() => {
  const image: ImageCell = [IMAGE, ({ image }) => image];
  const digest: ImageCell = [DIGEST, ({ digest }) => digest];
  const shortDigest: ImageCell = [DIGEST, ({ digest }) => shortDigestOf(digest)];
  const platform: ImageCell = [PLATFORM, ({ platform }) => platform];
  const size: ImageCell = [SIZE, ({ sizeBytes }) => formatBytes(sizeBytes)];
  const shared: ImageCell = [SHARED, ({ sharedBytes }) => formatBytes(sharedBytes)];
  const lastUsed: ImageCell = [LAST_USED, ({ lastUsed }) => timeText(lastUsed)];
  const lastDay: ImageCell = [LAST_USED, ({ lastUsed }) => lastUsed.slice(0, 10)];
  return [
    [image, digest, platform, size, shared, lastUsed],
    [image, shortDigest, platform, size, shared, lastUsed],
    [image, shortDigest, platform, size, shared, lastDay],
    [image, shortDigest, platform, size, lastDay],
    [image, shortDigest, platform, size],
    [image, shortDigest, size],
  ];
})();

/** An ISO 8601 time as `2026-01-31 12:05 UTC`. */
function timeText(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

/** The columns of a table with whole digests. */
const BLOB_TABLE_COLUMNS = 'sha256:'.length + 64 + '  RECEIVED'.length;

function blobTable(blobs: StoreListing['brokenOff'], columns = Number.POSITIVE_INFINITY): string {
  const isNarrow = columns < BLOB_TABLE_COLUMNS;
  const rows = blobs.map(({ blob, bytes }) => [isNarrow ? shortDigestOf(blob) : blob, formatBytes(bytes)]);
  return formatTable(BLOB_COLUMNS, rows);
}

/** The first digits of a digest, which `zpull store rm` takes. */
function shortDigestOf(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12);
}

/**
 * A table of images. On a terminal of so many columns, the first that fits: digests become short,
 * then columns are left out; names are never cut.
 */
export function imageTable(images: readonly ListedImage[], columns = Number.POSITIVE_INFINITY): string {
  let table = '';
  for (const cells of IMAGE_TABLES) {
    table = formatTable(
      cells.map(([column]) => column),
      images.map((image) => cells.map(([, cell]) => cell(image))),
    );
    const width = Math.max(...table.split('\n').map((line) => line.length));
    if (width <= columns) break;
  }
  return table;
}

/** `zpull store prune`: prints what it freed, or with `--dry-run` would free. */
async function runPrune({ store, olderThanMs, dryRun, json, warn }: StoreArguments): Promise<number> {
  const age = olderThanMs === undefined ? {} : { olderThanMs };
  const result = await pruneStore({ store, warn, dryRun, ...age });
  const { freedBytes, removedLayers, removedPacks, removedBlobs, rewrittenPacks, stoppedBy } = result;
  if (json) {
    process.stdout.write(jsonLine(result));
    return 0;
  }
  const what = [
    formatCount(removedLayers, 'layer'),
    formatCount(removedPacks, 'pack'),
    formatCount(removedBlobs, 'blob'),
  ].join(', ');
  const rewritten = rewrittenPacks === 0 ? '' : `; ${formatCount(rewrittenPacks, 'pack')} rewritten`;
  const freed = `${formatBytes(freedBytes)} ${dryRun ? 'would be freed' : 'freed'}`;
  process.stdout.write(`${freed}: ${what} removed${rewritten}\n`);
  if (stoppedBy !== null) {
    process.stderr.write(`zpull: stopped, because another process uses the store (${stoppedBy})\n`);
    process.stderr.write('hint: run it again later to free the rest\n');
  }
  return 0;
}

/** `zpull store rm IMAGE`: prints the digest of each platform's image that it removed. */
async function runRemove({ store, image, json, warn }: StoreArguments): Promise<number> {
  const removed = await removeImage({ store, warn, image: image! });
  if (json) process.stdout.write(jsonLine({ removed }));
  else for (const { digest, platform } of removed) process.stdout.write(`${digest} ${printable(platform)}\n`);
  return 0;
}

/** `zpull store verify [IMAGE]`: prints damaged layers. */
async function runVerify({ store, image, json, warn }: StoreArguments): Promise<number> {
  const result = await untilSignal((signal) =>
    verifyStore({ store, warn, signal, ...(image !== undefined && { image }) }),
  );
  const { checked, damaged } = result;
  if (json) process.stdout.write(jsonLine(result));
  else if (damaged.length === 0)
    process.stdout.write(`${formatCount(checked, 'layer')} checked, none damaged\n`);
  else {
    const rows = damaged.map(({ diffId, path = '-', images }) => [diffId, path, images.join(', ') || '-']);
    process.stdout.write(formatTable(DAMAGE_COLUMNS, rows));
    const layers = new Set(damaged.map(({ diffId }) => diffId)).size;
    process.stderr.write(`zpull: ${formatCount(layers, 'layer')} of ${checked} damaged\n`);
    process.stderr.write('hint: pull the images again: zpull fetches only what is damaged\n');
  }
  return damaged.length === 0 ? 0 : DAMAGED_EXIT_CODE;
}
