import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('../../../bin/zpull.cjs', import.meta.url));

export interface ServeChild {
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  /** Ends the process; resolves when it is gone. */
  stop(): Promise<void>;
}

/**
 * `zpull serve` in a process of its own, so that it takes nothing from the one that pulls; resolves when it listens.
 * @throws Error when it ends before
 */
export async function startServeChild(layout: string): Promise<ServeChild> {
  const child = spawn(process.execPath, [SCRIPT, 'serve', `oci:${layout}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  const address = await Promise.race([firstLine(child), ended.then(() => undefined)]);
  if (address === undefined) throw new Error('the registry of the demo ended before it listened');
  return { address, stop };
}

async function firstLine({ stdout }: ChildProcess): Promise<string | undefined> {
  for await (const line of createInterface({ input: stdout! })) return line;
  return undefined;
}
