import { cp } from 'node:fs/promises';
import { type ErrorCode, PullError } from '../index.js';
import { runChild } from './child.js';
import { type Context, NO_SETTING, type ResolvedImage, removeTree } from './context.js';
import type { Finding, Subject } from './recorder.js';
import type { Stages } from './report.js';

/** How many threads and requests a pull uses. */
export interface Setting {
  readonly workers: number;
  readonly connections: number;
}

/** One call of the command. */
interface Call {
  /** The command and its own arguments. */
  readonly words: readonly string[];
  readonly store: string;
  /** Whether it speaks to a registry, for which it needs the options of the user. */
  readonly isRemote: boolean;
  /** Cores to run on, in taskset's words. */
  readonly cores?: string;
}

/** What `--json` prints, as far as measurements need it. */
interface Result {
  readonly fetchedBytes?: number;
  readonly stages?: Stages;
  readonly layers?: ReadonlyArray<{
    readonly digest: string;
    readonly format: string;
    readonly tarBytes: number;
  }>;
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly hint: string };
}

/** What one call did. */
export interface Called extends Omit<Finding, 'bytes'> {
  readonly result: Result;
}

/**
 * Runs the command as users do, in a process of its own: start-up, memory and CPU time are part of
 * the figures.
 * @throws PullError as the command prints it
 */
export async function callCommand(context: Context, call: Call): Promise<Called> {
  const { command, signal, input, arguments: given } = context.options;
  const args = [
    ...process.execArgv,
    command,
    ...call.words,
    ...['--store', call.store, '--platform', context.image.platform, '--json', '--progress', 'json'],
    ...(call.isRemote ? given : []),
  ];
  const [program, words] =
    call.cores === undefined
      ? [process.execPath, args]
      : ['taskset', ['-c', call.cores, process.execPath, ...args]];
  // The launcher sets it for this process's cores; a child may have others.
  const { UV_THREADPOOL_SIZE: _, ...env } = process.env;
  const events = new Events();
  const ended = await runChild(program, words, {
    signal,
    env,
    ...(call.isRemote && input !== undefined && { input }),
    onLine: (line, atMs) => events.read(line, atMs),
  });
  const result = resultOf(ended.stdout);
  if (ended.code !== 0 || result === undefined) throw failureOf(result, ended);
  const stages = result.stages ?? null;
  return {
    result,
    wallSeconds: ended.wallMs / 1000,
    cpuSeconds: stages?.cpuSeconds ?? null,
    peakMemoryBytes: stages?.peakMemoryBytes ?? null,
    stages,
    timeline: events.timeline,
    doubts: events.doubts(),
  };
}

function resultOf(stdout: string): Result | undefined {
  try {
    return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Result;
  } catch {
    return undefined;
  }
}

function failureOf(
  result: Result | undefined,
  { code, signal, stderr }: { code: number | null; signal: string | null; stderr: string },
): PullError {
  if (result?.error !== undefined) {
    const { code: errorCode, message, hint } = result.error;
    return new PullError(errorCode, message, { hint });
  }
  const end = signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`;
  return new PullError('internal', `the command ${end}: ${stderr.trim().slice(-300)}`);
}

/** The lines of `--progress json`. */
class Events {
  readonly timeline: Array<readonly [number, number]> = [];
  #waits = 0;
  #misses = 0;

  read(line: string, atMs: number): void {
    const event = parseEvent(line);
    if (event === undefined) return;
    if (event.event === 'progress' && typeof event.receivedBytes === 'number') {
      this.timeline.push([Math.round(atMs), event.receivedBytes]);
    }
    if (event.event === 'waiting') this.#waits += 1;
    if (event.event === 'miss') this.#misses += 1;
  }

  doubts(): string[] {
    return doubtsOfNetwork(this.#waits, this.#misses);
  }
}

/** What made a run on the network doubtful. */
export function doubtsOfNetwork(waits: number, misses: number): string[] {
  return [
    ...(waits > 0 ? ['the registry asked to wait, as it limits requests: the time includes that'] : []),
    ...(misses > 0 ? ['there were network failures: the time includes new attempts'] : []),
  ];
}

function parseEvent(line: string): { event?: unknown; receivedBytes?: unknown } | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as { event?: unknown; receivedBytes?: unknown };
  } catch {
    return undefined;
  }
}

function settingWords({ workers, connections }: Setting): string[] {
  return ['--workers', String(workers), '--connections', String(connections)];
}

/** Pulls an image into a store by the command. */
export function pullInto(
  context: Context,
  store: string,
  setting: Setting,
  image: ResolvedImage = context.image,
): Promise<Called> {
  const words = ['pull', image.pinned, ...settingWords(setting)];
  return callCommand(context, { words, store, isRemote: !image.isLocal });
}

/** The store of the last pull with the setting that a user gets, for what is measured after it. */
export interface KeptStore {
  path?: string;
}

/** Cold pulls, over a grid of settings. */
export async function measurePulls(
  context: Context,
  settings: readonly Setting[],
  usual: Setting,
  kept: KeptStore,
): Promise<void> {
  const runOf = (setting: Setting) => async (): Promise<Finding> => {
    const store = context.freshStore(context.image);
    try {
      const { result, ...called } = await pullInto(context, store, setting);
      noteTars(context, result);
      if (setting === usual) keep(kept, store);
      return { ...called, bytes: result.fetchedBytes ?? context.image.blobBytes };
    } finally {
      if (kept.path !== store) removeTree(store);
    }
  };
  await context.inTurns(settings.map((setting) => ({ subject: pullSubject(setting), run: runOf(setting) })));
}

function keep(kept: KeptStore, store: string): void {
  if (kept.path !== undefined) removeTree(kept.path);
  kept.path = store;
}

/** Sizes of tars, and formats, which are certain only once the layers were decoded. */
function noteTars({ recorder: { report } }: Context, { layers = [] }: Result): void {
  const { image } = report;
  for (const layer of image.layers) {
    const pulled = layers.find(({ digest }) => digest === layer.digest);
    if (pulled !== undefined) layer.tarBytes = pulled.tarBytes;
  }
  image.tarBytes = image.layers.reduce((sum, { tarBytes }) => sum + (tarBytes ?? 0), 0);
}

export function pullId({ workers, connections }: Setting): string {
  return `pull/w${workers}/c${connections}`;
}

function pullSubject(setting: Setting): Subject {
  const { workers, connections } = setting;
  const name = `pull, ${count(workers, 'worker')}, ${connections} conn.`;
  return { ...NO_SETTING, ...setting, id: pullId(setting), stage: 'pull', name };
}

export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

/** The same pull again, with everything in the store. By digest, so no request is sent. */
export async function measureUnchanged(context: Context, setting: Setting, store: string): Promise<void> {
  const subject: Subject = {
    ...NO_SETTING,
    id: 'unchanged',
    stage: 'unchanged',
    name: 'pull again, unchanged',
  };
  const run = async (): Promise<Finding> => {
    const { result, ...called } = await pullInto(context, store, setting);
    return { ...called, bytes: result.fetchedBytes ?? 0 };
  };
  await context.inTurns([{ subject, run }]);
}

/** A pull into a store that has another version of the image. */
export async function measureUpdate(context: Context, setting: Setting, from: ResolvedImage): Promise<void> {
  const subject: Subject = {
    ...NO_SETTING,
    id: 'update',
    stage: 'update',
    name: 'update from older image',
  };
  context.expect([subject.id]);
  await context.withPath(context.freshStore(from), async (base) => {
    context.announce({ ...subject, name: 'pulling the older image' });
    try {
      await pullInto(context, base, setting, from);
    } catch (error) {
      context.options.signal.throwIfAborted();
      return context.fail(subject.id, error);
    }
    const run = (): Promise<Finding> =>
      context.withPath(context.freshStore(context.image), async (store) => {
        await cp(base, store, { recursive: true });
        const { result, ...called } = await pullInto(context, store, setting);
        return { ...called, bytes: result.fetchedBytes ?? 0 };
      });
    await context.inTurns([{ subject, run }]);
  });
}

/** Files of the image out of the store. */
export async function measureExport(context: Context, setting: Setting, store: string): Promise<void> {
  const subject: Subject = {
    ...NO_SETTING,
    id: 'export',
    stage: 'export',
    name: 'export, root file system',
  };
  const run = (): Promise<Finding> =>
    context.withPath(context.newPath(), async (files) => {
      const owner = process.getuid?.() === 0 ? [] : ['--no-same-owner'];
      const words = ['export', context.image.pinned, `rootfs:${files}`, ...owner, ...settingWords(setting)];
      const { result: _, ...called } = await callCommand(context, {
        words,
        store,
        isRemote: !context.image.isLocal,
      });
      return { ...called, bytes: context.recorder.report.image.tarBytes };
    });
  await context.inTurns([{ subject, run }]);
}
