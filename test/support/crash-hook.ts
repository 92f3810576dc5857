/**
 * Loaded into a child before everything else (`node --import`), in each of its threads: names every step that changes the
 * store as it is about to be made, and kills the process at one of them. The program itself knows nothing of it.
 * ZPULL_TEST_STORE: the store's directory. ZPULL_TEST_STEPS: a file to which the steps are appended, a line each.
 * ZPULL_TEST_KILL: the line at which the process is killed, before the step is made.
 * ZPULL_TEST_COPIES: a directory that gets a copy of the store before each step, under the number of its line. No thread
 * begins a step meanwhile: the copy is what is left when the process is killed there.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname, join, sep } from 'node:path';
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';

const {
  ZPULL_TEST_STORE: store,
  ZPULL_TEST_STEPS: log,
  ZPULL_TEST_KILL: killAt,
  ZPULL_TEST_COPIES: copies,
} = process.env;
/** The original functions: calls of the hook itself are no steps. */
const { appendFileSync, copyFileSync, mkdirSync, readdirSync, readlinkSync, renameSync } = fs;
/** Of all threads: whether one of them is at its step, and how many steps there were. */
const shared = isMainThread
  ? new Int32Array(new SharedArrayBuffer(8))
  : (getEnvironmentData('steps') as unknown as Int32Array);
if (isMainThread) setEnvironmentData('steps', shared as never);
const counts = new Map<string, number>();
const paths = new Map<number, string>();

/** What kind of file a path of the store is: `layers/HEX`, `packs/ID.idx.open`, `layers/HEX.tmp`. */
function kindOf(path: string): string {
  if (path === store) return 'the store';
  const name = basename(path)
    .replace(/^[0-9a-f]{64}/, 'HEX')
    .replace(/^[0-9a-f]{32}/, 'ID')
    .replace(/\.[0-9a-f]{16}\.tmp$/, '.tmp')
    .replace(/\.part-\d+-[0-9a-f]*-[0-9a-f]{16}$/, '.part-PID')
    .replace(/^ID\.(pull|export|verify|prune)\..*$/, 'ID.$1');
  return `${basename(dirname(path))}/${name}`;
}

/** The path of a file that is found by way of a directory held open. */
function pathOf<T>(at: T): T | string {
  if (typeof at !== 'string') return at;
  return at.replace(/^\/proc\/self\/fd\/\d+(?=\/)/, (holder) => readlinkSync(holder));
}

/** Whether an open makes its file. */
function makes(flags: string | number): boolean {
  return typeof flags === 'number' ? (flags & fs.constants.O_CREAT) !== 0 : /[wa]/.test(flags);
}

function step(operation: string, at: unknown): void {
  if (store === undefined || typeof at !== 'string') return;
  const path = pathOf(at);
  if (path !== store && !path.startsWith(`${store}${sep}`)) return;
  const name = `${isMainThread ? 'main' : 'worker'} ${operation} ${kindOf(path)}`;
  // The heartbeat of a lease comes at any time.
  if (name.includes('leases/') && (counts.get(name) ?? 0) > 0) return;
  const count = (counts.get(name) ?? 0) + 1;
  counts.set(name, count);
  const line = `${name} ${count}`;
  alone(() => {
    if (log !== undefined) appendFileSync(log, `${line} ${path}\n`);
    if (line === killAt) process.kill(process.pid, 'SIGKILL');
    if (copies !== undefined) copyTree(store, join(copies, String(Atomics.add(shared, 1, 1))));
  });
}

/** Runs `work` while no other thread is in its step. */
function alone<T>(work: () => T): T {
  while (Atomics.compareExchange(shared, 0, 0, 1) !== 0) Atomics.wait(shared, 0, 1);
  try {
    return work();
  } finally {
    Atomics.store(shared, 0, 0);
    Atomics.notify(shared, 0, 1);
  }
}

/** Copies a directory, without what is deleted meanwhile. */
function copyTree(from: string, to: string): void {
  mkdirSync(to);
  const entries = unlessGone(() => readdirSync(from, { withFileTypes: true })) ?? [];
  for (const entry of entries) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) copyTree(source, target);
    else unlessGone(() => copyFileSync(source, target));
  }
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

type Call = (...args: never[]) => unknown;

/** Makes a function of `holder` report `operation` with its `at`th argument before it runs. */
function wrap(holder: object, name: string, operation: string, at = 0): void {
  const methods = holder as Record<string, (...args: unknown[]) => unknown>;
  const original = methods[name]!;
  methods[name] = function wrapped(this: unknown, ...args: unknown[]) {
    const path = typeof args[at] === 'number' ? paths.get(args[at]) : args[at];
    step(operation, path);
    return Reflect.apply(original, this, args);
  };
}

const originals = { open: fs.promises.open as Call, openSync: fs.openSync as Call };

/** Only opens that create a file are steps. */
fs.openSync = ((at: string, flags: string | number, ...rest: unknown[]) => {
  const path = pathOf(at);
  if (makes(flags)) step('open', path);
  const fd = Reflect.apply(originals.openSync, fs, [at, flags, ...rest]) as number;
  paths.set(fd, path);
  return fd;
}) as typeof fs.openSync;

fs.promises.open = (async (at: string, flags: string | number, ...rest: unknown[]) => {
  const path = pathOf(at);
  if (makes(flags)) step('open', path);
  const file = (await Reflect.apply(originals.open, fs.promises, [at, flags, ...rest])) as { fd: number };
  paths.set(file.fd, path);
  return file;
}) as typeof fs.promises.open;

const handle = await fs.promises.open(import.meta.filename, 'r');
const prototype = Object.getPrototypeOf(handle) as Record<string, (...args: unknown[]) => unknown>;
await handle.close();
for (const name of ['sync', 'writeFile']) {
  const original = prototype[name]!;
  prototype[name] = function wrapped(this: { fd: number }, ...args: unknown[]) {
    step(name === 'sync' ? 'sync' : 'write', paths.get(this.fd));
    return Reflect.apply(original, this, args);
  };
}
wrap(fs.promises, 'unlink', 'unlink');
wrap(fs, 'writeSync', 'write');
wrap(fs, 'fsyncSync', 'sync');
wrap(fs, 'unlinkSync', 'unlink');
wrap(fs, 'mkdirSync', 'mkdir');

/** Not during a copy, which could get the file under neither name. */
function renameAlone(from: string, to: string): void {
  step('rename to', to);
  alone(() => renameSync(from, to));
}
fs.renameSync = renameAlone as typeof fs.renameSync;
fs.promises.rename = (async (from: string, to: string) => renameAlone(from, to)) as typeof fs.promises.rename;
syncBuiltinESMExports();
