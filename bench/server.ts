import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { RegistryOptions } from '../src/sandbox/registry-server.js';
import { benchFile } from './process.js';

export interface Server {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** CPU seconds that it used so far. */
  cpuSeconds(): Promise<number>;
}

/** Runs `action` with the sandbox registry in a process of its own, pinned to `cores` when given, which ends afterwards. */
export async function withServer<T>(
  options: RegistryOptions,
  action: (server: Server) => Promise<T>,
  cores?: string,
): Promise<T> {
  const pinned =
    cores === undefined ? {} : { execPath: 'taskset', execArgv: ['-c', cores, process.execPath] };
  const child = fork(benchFile('server-child.js'), [JSON.stringify(options)], pinned);
  const ended = once(child, 'exit');
  const answer = async <Answer>(): Promise<Answer> => {
    const died = ended.then(() => Promise.reject(new Error('the server ended')));
    const [message] = await Promise.race([once(child, 'message'), died]);
    return message as Answer;
  };
  try {
    const { host } = await answer<{ host: string }>();
    const cpuSeconds = () => {
      child.send('cpu');
      return answer<number>();
    };
    return await action({ host, cpuSeconds });
  } finally {
    if (child.connected) child.disconnect();
    await ended;
  }
}
