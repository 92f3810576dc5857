/**
 * A process that works on stores with planted files, for a test that detects hangs and memory growth. argv: a JSON object with `image`, a
 * `template` store that has it, an empty `directory` and a `secret`. Writes one JSON object a line: the outcome of each command on a store
 * with files of each kind, then the peak memory.
 */
import { cpSync, existsSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { PullError } from '../../src/api/errors.js';
import { exportTar } from '../../src/api/export.js';
import { pullImage } from '../../src/api/pull.js';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { listImageRecords } from '../../src/store/image-record.js';
import { LayerLocks } from '../../src/store/layer-locks.js';
import { readLayerRecord } from '../../src/store/layer-record.js';
import { Lease } from '../../src/store/leases.js';
import { openStore, type StorePaths } from '../../src/store/paths.js';
import { KINDS, type Kind, plant } from './planted.js';

export interface PlantedJob {
  readonly image: string;
  readonly template: string;
  readonly directory: string;
  readonly secret: string;
}

export type PlantedLine =
  | { readonly kind: Kind; readonly place: string; readonly command: string; readonly outcome: string }
  | { readonly peakBytes: number };

const job = JSON.parse(process.argv[2]!) as PlantedJob;
const say = (line: PlantedLine) => writeSync(1, `${JSON.stringify(line)}\n`);

const { diffIds } = listImageRecords(openStore(job.template))[0]!;

function filesIn(directory: string, suffix: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(directory, name));
}

/** The paths to plant at: all files of one kind at a time. */
const PLACES: Readonly<Record<string, (paths: StorePaths) => string[]>> = {
  'image record': ({ images }) => filesIn(images, ''),
  'layer record': ({ layers }) => filesIn(layers, ''),
  blob: ({ blobs }) => filesIn(blobs, ''),
  index: ({ packs }) => filesIn(packs, '.idx'),
  pack: ({ packs }) => filesIn(packs, '.pack'),
  'bad runs': ({ packs }) => filesIn(packs, '.pack').map((path) => path.replace(/pack$/, 'bad')),
  lock: ({ locks }) => diffIds.map((diffId) => join(locks, diffId.slice(7))),
  lease: ({ leases }) => [join(leases, `${'0'.repeat(32)}.pull.1.`)],
};

async function outcomeOf(work: () => unknown): Promise<string> {
  try {
    const result = await work();
    return typeof result === 'string' ? result : 'done';
  } catch (error) {
    return error instanceof PullError && error.hint !== undefined ? error.code : `${error}`;
  }
}

/** Commands without threads run for each path by itself. */
async function alone(kind: Kind, place: string, paths: StorePaths): Promise<void> {
  const store = paths.root;
  const lock = () => {
    const lease = new Lease(paths, 'pull');
    try {
      const locks = new LayerLocks(paths, lease);
      const taken = locks.tryLock(diffIds[0]!);
      locks.releaseAll();
      return taken ? 'done' : 'locked';
    } finally {
      lease.close();
    }
  };
  const held = () => (readLayerRecord(paths, diffIds[0]!) === undefined ? 'absent' : 'held');
  const listed = () => (listStore({ store }).images.length === 0 ? 'absent' : 'held');
  for (const [command, work] of Object.entries({ lock, held, listed }))
    say({ kind, place, command, outcome: await outcomeOf(work) });
}

/** Runs the commands one after the other with everything planted at once. */
async function together(kind: Kind, paths: StorePaths): Promise<void> {
  const store = paths.root;
  const commands: Readonly<Record<string, () => unknown>> = {
    verify: async () => `${(await verifyStore({ store })).damaged.length > 0 ? 'damaged' : 'whole'}`,
    rm: () => removeImage({ store, image: job.image }),
    export: () => exportTar({ store, diffIds, file: join(job.directory, `${kind}.tar`) }),
    pull: () => pullImage(job.image, { store, policy: 'missing' }),
    prune: () => pruneStore({ store }),
    'export again': () => exportTar({ store, diffIds, file: join(job.directory, `${kind}.tar`) }),
    'verify again': async () => `${(await verifyStore({ store })).damaged.length > 0 ? 'damaged' : 'whole'}`,
  };
  for (const [command, work] of Object.entries(commands))
    say({ kind, place: 'everywhere', command, outcome: await outcomeOf(work) });
}

/** The other links make no difference to the commands. */
const TO_COMMANDS: readonly Kind[] = ['fifo', 'zeros', 'directory', 'huge'];

for (const kind of KINDS) {
  for (const [place, pathsOf] of [...Object.entries(PLACES), ['everywhere', undefined] as const]) {
    if (pathsOf === undefined && !TO_COMMANDS.includes(kind)) continue;
    const store = join(job.directory, `${kind} ${place}`);
    cpSync(job.template, store, { recursive: true });
    const paths = openStore(store);
    const planted = pathsOf?.(paths) ?? Object.values(PLACES).flatMap((each) => each(paths));
    plant(kind, planted, job.secret);
    if (pathsOf === undefined) await together(kind, paths);
    else await alone(kind, place, paths);
  }
}
const [, peakKiB] = existsSync('/proc/self/status')
  ? (/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [])
  : [];
say({ peakBytes: 1024 * Number(peakKiB ?? 0) });
