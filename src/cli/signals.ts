import { PullError } from '../api/errors.js';

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Runs `work` with a signal that SIGINT and SIGTERM abort; a second one ends the process at once.
 * `kept`: where the next run finds what was received, if it does.
 * @throws PullError `interrupted` or `terminated` after an abort, whatever `work` throws; else what
 *   `work` throws
 */
export async function untilSignal<T>(
  work: (signal: AbortSignal) => Promise<T>,
  kept?: 'in the store' | 'at the destination',
): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: keyof typeof EXIT_CODES): void => {
    if (controller.signal.aborted) endAtOnce(name);
    controller.abort(stoppedBy(name, kept));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    return await work(controller.signal);
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/**
 * Ends the process by the signal's own action, for which a shell reports 128 and its number.
 * `process.exit` waits for all threads: one in a system call that does not return (a write to a
 * socket that nobody reads, a dead disk) would block it forever.
 */
function endAtOnce(name: keyof typeof EXIT_CODES): never {
  process.removeAllListeners(name);
  process.kill(process.pid, name);
  // The signal does not end the first process of a container, nor a process that inherited it as
  // blocked.
  process.exit(EXIT_CODES[name]);
}

function stoppedBy(name: keyof typeof EXIT_CODES, kept: string | undefined): PullError {
  const code = name === 'SIGINT' ? 'interrupted' : 'terminated';
  const what = `${code} by ${name}`;
  return kept === undefined
    ? new PullError(code, what, { hint: 'run the same command again' })
    : new PullError(code, `${what}; what was received stays ${kept}`, {
        hint: 'run the same command again: what was received is not fetched again',
      });
}
