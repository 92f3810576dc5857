import { linkSignals } from '../format/abort.js';
import type { EventOrigin, PullEvent } from '../pull/pull-events.js';
import type { PullOptions } from '../pull/pull-options.js';
import type { PullResult } from '../pull/pull-result.js';

/** An event of a pull, of which the last one is the result. */
export type ProgressEvent =
  | (PullEvent & EventOrigin)
  | (EventOrigin & { readonly event: 'result'; readonly result: PullResult });

type EventCall = Pick<PullOptions, 'signal' | 'onEvent'>;

/** Yields the events of a pull, as `Client.pullEvents`. `options`: those of the caller. */
export async function* eventsOf(
  pull: (call: EventCall) => Promise<PullResult>,
  options: EventCall,
): AsyncGenerator<ProgressEvent, void, undefined> {
  const ending = linkSignals(options.signal);
  const events: ProgressEvent[] = [];
  let wake = () => {};
  const add = (event: ProgressEvent) => {
    // A slow reader gets the latest figures only.
    if (event.event === 'progress' && events.at(-1)?.event === 'progress') events.pop();
    events.push(event);
    wake();
  };
  let failure: { readonly error: unknown } | undefined;
  const onEvent = (event: PullEvent & EventOrigin) => {
    options.onEvent?.(event);
    add(event);
  };
  const pulling = pull({ signal: ending.signal, onEvent }).then(
    (result) => add({ event: 'result', image: result.image, timeMs: Date.now(), result }),
    (error: unknown) => {
      failure = { error };
      wake();
    },
  );
  try {
    for (;;) {
      const event = events.shift();
      if (event !== undefined) {
        yield event;
        if (event.event === 'result') return;
      } else if (failure !== undefined) throw failure.error;
      else {
        await new Promise<void>((done) => {
          wake = done;
        });
      }
    }
  } finally {
    ending.abort();
    ending.unlink();
    await pulling;
  }
}
