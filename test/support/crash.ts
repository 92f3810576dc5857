import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { storePaths } from '../../src/store/paths.js';
import { temporaryDirectory } from './temporary.js';

/** A change of the store that a process was about to make. */
export interface Step {
  /** `main rename to layers/HEX 1`: thread, operation, kind of file, how many of this name there were before and with it. */
  readonly name: string;
  readonly path: string;
}

/** A process that ran with the hook: its steps, and how it ended. */
interface Ended {
  readonly steps: readonly Step[];
  readonly end: number | string | null;
}

/**
 * Runs node with the hook of `crash-hook.ts` over a store; `killAt` names the step at which it is killed, `copies` a new
 * directory for what would be left of the store if it were killed at this step or that one.
 */
export async function runWithHook(
  t: TestContext,
  options: { store: string; log: string; args: readonly string[]; killAt?: string; copies?: string },
): Promise<Ended> {
  const { store, log, args, killAt, copies } = options;
  if (copies !== undefined) mkdirSync(copies);
  const hook = join(import.meta.dirname, 'crash-hook.js');
  const child = spawn(process.execPath, [...process.execArgv, '--import', hook, ...args], {
    stdio: 'ignore',
    env: {
      ...process.env,
      ZPULL_TEST_STORE: store,
      ZPULL_TEST_STEPS: log,
      ...(killAt !== undefined && { ZPULL_TEST_KILL: killAt }),
      ...(copies !== undefined && { ZPULL_TEST_COPIES: copies }),
    },
  });
  t.after(() => child.kill('SIGKILL'));
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  const steps = lines.map((line) => {
    const [, name = '', path = ''] = /^(.* \d+) (\/.*)$/.exec(line) ?? [];
    return { name, path };
  });
  return { steps, end: code ?? signal };
}

/** The first step of each name, and the last one where the main thread publishes something. */
function stepsToKillAt(steps: readonly Step[]): string[] {
  const byName = new Map<string, string[]>();
  for (const { name } of steps) {
    const kind = name.replace(/ \d+$/, '');
    byName.set(kind, [...(byName.get(kind) ?? []), name]);
  }
  return [...byName].flatMap(([kind, names]) => {
    const [first = '', last = first] = [names[0], names.at(-1)];
    return /^main (rename|sync)/.test(kind) && last !== first ? [first, last] : [first];
  });
}

/** A store as a kill leaves it. */
export interface Left {
  readonly step: string;
  readonly store: string;
  /** Whether no kill before it leaves the same files. */
  readonly isNew: boolean;
}

/** Returns what a kill at each of these steps leaves, from the copies of `runWithHook`. */
function leftByKills(steps: readonly Step[], kills: readonly string[], copies: string): Left[] {
  const seen = new Set<string>();
  return kills.map((step) => {
    const store = join(copies, String(steps.findIndex(({ name }) => name === step)));
    const files = JSON.stringify(filesOf(store));
    const isNew = !seen.has(files);
    seen.add(files);
    return { step, store, isNew };
  });
}

/**
 * Runs a process over a store, a copy of `prepared` if there is one, and says what a kill at each of its steps leaves. The copies are
 * made before the steps, while no thread begins another: they are what SIGKILL would leave, at the price of one process.
 */
export async function killEverywhere(
  t: TestContext,
  args: (store: string) => string[],
  prepared?: string,
  exitCode = 0,
) {
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  if (prepared !== undefined) cpSync(prepared, store, { recursive: true });
  const [log, copies] = [join(directory, 'log'), join(directory, 'copies')];
  const { steps, end } = await runWithHook(t, { store, log, args: args(store), copies });
  assert.equal(end, exitCode);
  const kills = stepsToKillAt(steps);
  return { store, steps, kills, left: leftByKills(steps, kills, copies) };
}

/** Every file of a directory, by its path in it, with the hash of its bytes. */
export function filesOf(directory: string): Record<string, string> {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  const files = entries.flatMap((entry) => {
    if (!entry.isFile()) return [];
    const path = join(entry.parentPath, entry.name);
    const hash = createHash('sha256').update(readFileSync(path)).digest('hex');
    return [[path.slice(directory.length), hash] as const];
  });
  return Object.fromEntries(files.sort());
}

/** Makes leases and locks of a store as old as those of dead processes. */
export function buryLeases(store: string): void {
  const { leases, locks } = storePaths(store);
  for (const directory of [leases, locks]) makeOld(directory);
}

/** Makes the files of a directory, if it exists, older than those of any live process. */
export function makeOld(directory: string): void {
  if (!existsSync(directory)) return;
  const then = Date.now() / 1000 - 60;
  for (const name of readdirSync(directory)) utimesSync(join(directory, name), then, then);
}

/** Does `work` for each of the items, two at a time. */
export async function twoAtATime<T>(items: readonly T[], work: (item: T, row: number) => Promise<void>) {
  const queue = [...items.entries()];
  const run = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) await work(next[1], next[0]);
  };
  await Promise.all([run(), run()]);
}
