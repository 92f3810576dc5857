import { PullError } from '../index.js';

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Runs `work` with a signal that SIGINT or SIGTERM abort; the second one ends the process at once.
 * @throws PullError `interrupted` or `terminated` when aborted, whatever `work` made of it; else what `work` threw
 */
export async function untilSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: keyof typeof EXIT_CODES): void => {
    if (controller.signal.aborted) process.exit(EXIT_CODES[name]);
    controller.abort(stoppedBy(name));
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

function stoppedBy(name: keyof typeof EXIT_CODES): PullError {
  const code = name === 'SIGINT' ? 'interrupted' : 'terminated';
  return new PullError(code, `${code} by ${name}; what was received stays in the store`, {
    hint: 'run the same command again: it goes on from there',
  });
}
