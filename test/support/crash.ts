import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { storePaths } from '../../src/store/paths.js';

/** A change of the store that a process was about to make. */
export interface Step {
  /** `main rename to layers/HEX 1`: thread, operation, kind of file, how many of this name there were before and with it. */
  readonly name: string;
  readonly path: string;
}

/** A process that was run with the hook: what it was about to do, and how it ended. */
interface Ended {
  readonly steps: readonly Step[];
  readonly end: number | string | null;
}

/** Runs node with the hook of `crash-hook.ts` over a store; `killAt` names the step at which it is killed. */
export async function runWithHook(
  t: TestContext,
  options: { store: string; log: string; args: readonly string[]; killAt?: string },
): Promise<Ended> {
  const { store, log, args, killAt } = options;
  const hook = join(import.meta.dirname, 'crash-hook.js');
  const child = spawn(process.execPath, ['--import', hook, ...args], {
    stdio: 'ignore',
    env: {
      ...process.env,
      ZPULL_TEST_STORE: store,
      ZPULL_TEST_STEPS: log,
      ...(killAt !== undefined && { ZPULL_TEST_KILL: killAt }),
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
export function stepsToKillAt(steps: readonly Step[]): string[] {
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

/** Makes the leases of a store those of processes that are long dead. */
export function buryLeases(store: string): void {
  const { leases } = storePaths(store);
  if (!existsSync(leases)) return;
  const then = Date.now() / 1000 - 60;
  for (const name of readdirSync(leases)) utimesSync(join(leases, name), then, then);
}

/** Does `work` for each of the items, two at a time. */
export async function twoAtATime<T>(items: readonly T[], work: (item: T, row: number) => Promise<void>) {
  const queue = [...items.entries()];
  const run = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) await work(next[1], next[0]);
  };
  await Promise.all([run(), run()]);
}
