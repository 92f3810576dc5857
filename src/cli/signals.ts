import { PullError } from '../api/errors.js';

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Runs `work` with a signal that SIGINT or SIGTERM abort; the second one ends the process at once. `kept`: where what was
 * received by then is for the next run, when anything is.
 * @throws PullError `interrupted` or `terminated` when aborted, whatever `work` made of it; else what `work` threw
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
 * Ends the process by the signal's own action, which a shell tells as 128 and its number. `process.exit` would wait for all threads, and
 * one in a call of the system that does not return (a write to a socket that nobody reads, a dead disk) would hold it for ever.
 */
function endAtOnce(name: keyof typeof EXIT_CODES): never {
  process.removeAllListeners(name);
  process.kill(process.pid, name);
  // The first process of a container does not end by its own signal; neither does one whose parent blocked it.
  process.exit(EXIT_CODES[name]);
}

function stoppedBy(name: keyof typeof EXIT_CODES, kept: string | undefined): PullError {
  const code = name === 'SIGINT' ? 'interrupted' : 'terminated';
  const what = `${code} by ${name}`;
  return kept === undefined
    ? new PullError(code, what, { hint: 'run the same command again' })
    : new PullError(code, `${what}; what was received stays ${kept}`, {
        hint: 'run the same command again: what is there is not fetched again',
      });
}
