import { listStore, pruneStore, removeImage, verifyStore } from '../../api/store.js';
import { UsageError } from '../failure.js';
import { type Column, formatBytes, formatCount, formatTable, jsonLine, printable } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { storeOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';

const IMAGE_COLUMNS: readonly Column[] = [
  { title: 'IMAGE' },
  { title: 'DIGEST' },
  { title: 'PLATFORM' },
  { title: 'SIZE', numeric: true },
  { title: 'SHARED', numeric: true },
  { title: 'LAST USED' },
];
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
}

interface ActionSpec {
  readonly image: 'required' | 'optional' | 'none';
  readonly olderThan?: true;
  /** Returns the exit code. */
  readonly run: (given: StoreArguments) => Promise<number>;
}

const ACTIONS: Readonly<Record<string, ActionSpec>> = {
  ls: { image: 'none', run: runList },
  rm: { image: 'required', run: runRemove },
  prune: { image: 'none', olderThan: true, run: runPrune },
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
  const olderThan = options['older-than'];
  if (olderThan !== undefined && action.olderThan !== true) {
    throw new UsageError(`zpull store ${name} has no option --older-than`, 'it is for zpull store prune');
  }
  return action.run({
    store: storeOf(options, process.env),
    image,
    json: options.json === true,
    warn: options.quiet === true ? () => {} : printWarning,
    olderThanMs: olderThan === undefined ? undefined : olderThan * 1000,
  });
}

function printWarning(message: string): void {
  process.stderr.write(`zpull: warning: ${printable(message)}\n`);
}

/** `zpull store path`: prints the path even when nothing is there yet. */
async function runPath({ store, json }: StoreArguments): Promise<number> {
  process.stdout.write(json ? jsonLine({ store }) : `${store}\n`);
  return 0;
}

/** An ISO 8601 time as `2026-01-31 12:05 UTC`. */
function timeText(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

/** `zpull store ls`: prints the images and what interrupted pulls left. */
async function runList({ store, json, warn }: StoreArguments): Promise<number> {
  const incomplete = (image: string, platform: string) => {
    process.stderr.write(`zpull: ${printable(image)} for ${printable(platform)} is not complete any more\n`);
    process.stderr.write('hint: pull it again: zpull fetches only what is missing\n');
  };
  const listing = listStore({ store, warn, ...(!json && { incomplete }) });
  if (json) {
    process.stdout.write(jsonLine(listing));
    return 0;
  }
  const images = listing.images.map(({ image, digest, platform, sizeBytes, sharedBytes, lastUsed }) => {
    return [image, digest, platform, formatBytes(sizeBytes), formatBytes(sharedBytes), timeText(lastUsed)];
  });
  process.stdout.write(formatTable(IMAGE_COLUMNS, images));
  if (listing.brokenOff.length > 0) {
    const blobs = listing.brokenOff.map(({ blob, bytes }) => [blob, formatBytes(bytes)]);
    process.stdout.write(`\n${formatTable(BLOB_COLUMNS, blobs)}`);
  }
  return 0;
}

/** `zpull store prune`: prints what it freed. */
async function runPrune({ store, olderThanMs, json, warn }: StoreArguments): Promise<number> {
  const result = await pruneStore({ store, warn, ...(olderThanMs !== undefined && { olderThanMs }) });
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
  process.stdout.write(`${formatBytes(freedBytes)} freed: ${what} removed${rewritten}\n`);
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
