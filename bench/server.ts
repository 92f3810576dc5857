import { createInterface } from 'node:readline';
import type { RegistryOptions } from '../src/sandbox/registry-server.js';
import { benchFile, cpuSeconds, finish, startNode } from './process.js';

export interface Server {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** CPU seconds that it used so far. */
  cpuSeconds(): Promise<number>;
  stop(): Promise<void>;
}

/** Starts the sandbox registry in a process of its own, pinned to `cores` when given. */
async function startServer(options: RegistryOptions, cores?: string): Promise<Server> {
  const child = startNode([benchFile('server-child.js'), JSON.stringify(options)], cores);
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('the server has no pipes');
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const ended = finish(child);
  const next = async (): Promise<Record<string, unknown>> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`the server ended: ${(await ended).stderr}`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  const { host } = await next();
  return {
    host: String(host),
    async cpuSeconds() {
      stdin.write('\n');
      return cpuSeconds((await next())['cpu'] as NodeJS.CpuUsage);
    },
    async stop() {
      stdin.end();
      await ended;
    },
  };
}

/** Runs `action` with a server that is stopped afterwards. */
export async function withServer<T>(
  options: RegistryOptions,
  action: (server: Server) => Promise<T>,
  cores?: string,
): Promise<T> {
  const server = await startServer(options, cores);
  try {
    return await action(server);
  } finally {
    await server.stop();
  }
}
