import { BroadcastChannel } from 'node:worker_threads';
import { toFailure } from '../format/error.js';
import type { MainMessage, WorkerEvent } from '../pool/messages.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import type { PullEvent } from './events.js';
import type { Patience } from './patience.js';

/** Answers what running tasks say: misses go to karma, a stale token is refreshed once for all workers. */
export class WorkerEvents {
  readonly #channel: BroadcastChannel;
  readonly #session: MirroredSession;
  readonly #patience: Patience;
  readonly #emit: (event: PullEvent) => void;
  #closed = false;

  constructor(options: {
    channel: string;
    session: MirroredSession;
    patience: Patience;
    emit: (event: PullEvent) => void;
  }) {
    this.#channel = new BroadcastChannel(options.channel);
    this.#session = options.session;
    this.#patience = options.patience;
    this.#emit = options.emit;
  }

  readonly handle = (event: WorkerEvent): void => {
    if (this.#closed) return;
    switch (event.event) {
      case 'miss':
        this.#emit({ event: 'miss', message: event.message });
        this.#patience.missed(event.message);
        break;
      case 'asking':
        this.#patience.asking(event.change);
        break;
      case 'throttled':
        this.#patience.throttled(event);
        break;
      case 'authorization':
        void this.#refresh(event.stale, event.endpoint);
        break;
      case 'request':
        this.#emit({ event: 'debug', line: event.line });
        break;
    }
  };

  /** What was on its way is not heard any more. */
  close(): void {
    this.#closed = true;
    this.#channel.close();
  }

  async #refresh(stale: string, endpoint: number): Promise<void> {
    const post = (message: MainMessage) => {
      if (!this.#closed) this.#channel.postMessage(message);
    };
    try {
      post({ message: 'authorization', endpoint, stale, ...(await this.#session.access(endpoint, stale)) });
    } catch (error) {
      post({ message: 'authorization-failed', endpoint, stale, failure: toFailure(error) });
    }
  }
}
