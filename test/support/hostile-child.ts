/**
 * A process that pulls hostile images into a store, one after the other, then an honest one, and flattens hostile trees. argv: a
 * `HostileJob`. Writes one JSON object a line on stdout, a `HostileOutcome` each.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { PullError } from '../../src/api/errors.js';
import { exportRootfs, exportTar } from '../../src/api/export.js';
import { pullImage } from '../../src/api/pull.js';
import { verifyStore } from '../../src/api/store.js';
import { flatten } from '../../src/export/flatten.js';
import { PLANTED } from './hostile/row.js';
import { assertWhole } from './pull.js';
import { sourceOf } from './tars.js';

interface Named {
  readonly name: string;
  readonly image: string;
}

export interface HostileJob {
  readonly group: {
    /** Images that share a store: none of them has a file or a layer of another. */
    readonly images: readonly (Named & { readonly isExported: boolean })[];
    /** Is pulled when all of them have been. */
    readonly honest: Named;
  };
  /** Layers to flatten, each the path of a tar. */
  readonly trees: readonly { readonly name: string; readonly tars: readonly string[] }[];
  /** The directory of store and destination. */
  readonly work: string;
  /** A directory in which nothing may change. */
  readonly outside: string;
}

export interface HostileOutcome {
  /** Of the image or the tree. */
  readonly name: string;
  readonly exit: number;
  /** The error, else the warnings. */
  readonly said: string;
  /** Problems other than the exit code. */
  readonly harm: readonly string[];
  /** The largest resident size since the row before, where the system can tell. */
  readonly peakBytes: number;
  readonly tookMs: number;
}

const job = JSON.parse(process.argv[2] ?? '') as HostileJob;
const OPTIONS = { workers: 1, connections: 4, policy: 'always' } as const;
const store = join(job.work, 'store');
const destination = join(job.work, 'out');

/** Makes the system forget the largest size so far (proc(5), clear_refs). Where it does not, rows before count as well. */
function forgetPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5', { flag: 'r+' });
  } catch {
    // Not Linux, or a /proc that cannot be written.
  }
}

function peakBytes(): number {
  if (!existsSync('/proc/self/status')) return 0;
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}

/** Every name outside with what it holds, and the names beside store and destination. */
function snapshot(): string {
  const entries = readdirSync(job.outside, { recursive: true, withFileTypes: true });
  const lines = entries.map((entry) => {
    const path = join(entry.parentPath, entry.name);
    if (entry.isSymbolicLink()) return `${path} -> ${readlinkSync(path)}`;
    return entry.isFile() ? `${path} ${readFileSync(path, 'latin1')}` : path;
  });
  const beside = readdirSync(job.work).filter((name) => name !== 'store' && name !== 'out');
  return [...lines, ...beside, String(existsSync(PLANTED))].sort().join('\n');
}

type Ended = Pick<HostileOutcome, 'exit' | 'said'>;

async function endOf(work: () => Promise<string>): Promise<Ended> {
  try {
    return { exit: 0, said: await work() };
  } catch (error) {
    if (!(error instanceof PullError))
      return { exit: 1, said: String(error instanceof Error ? error.stack : error) };
    const { exitCode, code, message, hint, layer = '' } = error;
    return { exit: exitCode, said: `${code}: ${message} ${layer}${hint === '' ? ' (no hint)' : ''}` };
  }
}

async function pull(image: string, isExported: boolean): Promise<string> {
  const warnings: string[] = [];
  const onEvent = (event: { event: string; message?: string }) => {
    if (event.event === 'warning') warnings.push(event.message ?? '');
  };
  const { layers } = await pullImage(image, { ...OPTIONS, store, onEvent });
  if (isExported) {
    const options = { store, diffIds: layers.map(({ diffId }) => diffId) };
    await exportTar({ ...options, file: destination });
    rmSync(destination);
    await exportRootfs({ ...options, directory: destination });
  }
  return warnings.join('\n');
}

/** Runs the work and reports its outcome; `after` adds problems of the store. */
async function row(
  name: string,
  work: () => Promise<string>,
  after: () => Promise<void> | void,
): Promise<void> {
  const before = snapshot();
  forgetPeak();
  const startedMs = performance.now();
  const ended = await endOf(work);
  const measured = { peakBytes: peakBytes(), tookMs: performance.now() - startedMs };
  const harm: string[] = [];
  try {
    await after();
  } catch (error) {
    harm.push(error instanceof Error ? error.message : String(error));
  }
  if (snapshot() !== before) harm.push('something outside has changed');
  if (ended.exit !== 0 && existsSync(destination)) harm.push('a failed export left its destination');
  writeSync(1, `${JSON.stringify({ name, ...ended, ...measured, harm } satisfies HostileOutcome)}\n`);
}

function lookAtStore(): void {
  if (existsSync(join(store, 'v1'))) assertWhole(store);
}

const { images, honest } = job.group;
mkdirSync(store);
for (const { name, image, isExported } of images) await row(name, () => pull(image, isExported), lookAtStore);
await row(
  honest.name,
  () => pull(honest.image, false),
  async () => {
    const { damaged } = await verifyStore({ store });
    if (damaged.length > 0) throw new Error(`the store is damaged: ${JSON.stringify(damaged)}`);
  },
);

for (const { name, tars } of job.trees) {
  const layers = tars.map((path) => sourceOf(readFileSync(path)));
  await row(
    name,
    async () => `${flatten(layers).count} rows`,
    () => {},
  );
}
