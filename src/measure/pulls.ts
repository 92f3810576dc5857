import { cp } from 'node:fs/promises';
import { removeTree } from '../files/remove-tree.js';
import { formatCount } from '../format/figures.js';
import { type Called, type Result, runCommand } from './command.js';
import { type Context, NO_SETTING, type ResolvedImage } from './context.js';
import type { Finding, Subject } from './recorder.js';

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

/** Calls the command with the options of the user. @throws as `runCommand` */
export function callCommand(context: Context, { words, store, isRemote, cores }: Call): Promise<Called> {
  const { command, signal, input, arguments: given } = context.options;
  const common = ['--store', store, '--platform', context.image.platform, '--json', '--progress', 'json'];
  return runCommand([command, ...words, ...common, ...(isRemote ? given : [])], {
    signal,
    ...(cores !== undefined && { cores }),
    ...(isRemote && input !== undefined && { input }),
  });
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
  const name = `pull, ${formatCount(workers, 'worker')}, ${connections} conn.`;
  return { ...NO_SETTING, ...setting, id: pullId(setting), stage: 'pull', name };
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
