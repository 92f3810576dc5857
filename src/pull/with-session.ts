import { asOutOfResources } from '../files/storage-error.js';
import { ofImage } from '../format/error.js';
import type { RunOptions } from './pull-options.js';
import { PullSession } from './pull-session.js';

/** What runs in a session. */
interface SessionWork<T> {
  run(): Promise<T>;
  /** Ends its threads and releases its locks. */
  close?(): Promise<void>;
}

/**
 * Opens a session, runs what `begin` makes until it or a stop ends it, and closes both. `interrupted`
 * is the message when the options' signal aborts.
 * @throws PullError as `PullSession.open` and the work, with the image
 */
export async function withSession<T>(
  reference: string,
  options: RunOptions,
  interrupted: string,
  begin: (session: PullSession) => SessionWork<T>,
): Promise<T> {
  const session = await PullSession.open(reference, options, interrupted);
  let work: SessionWork<T> | undefined;
  try {
    work = begin(session);
    const result = await session.stop.guard(work.run());
    session.end();
    return result;
  } catch (error) {
    throw ofImage(asOutOfResources(error), session.source.image);
  } finally {
    session.close();
    await work?.close?.();
    session.endTurns();
  }
}
