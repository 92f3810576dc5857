import { BroadcastChannel } from 'node:worker_threads';
import { toFailure } from '../format/error.js';
import type { MainMessage, WorkerEvent } from '../pool/messages.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import type { PullEvent } from './events.js';
import type { Patience } from './patience.js';
import { TargetRenewals } from './target-renewals.js';

/** Answers what running tasks say: misses go to karma, a stale token and an expired target are renewed once for all workers. */
export class WorkerEvents {
  readonly #channel: BroadcastChannel;
  readonly #session: MirroredSession;
  readonly #patience: Patience;
  readonly #emit: (event: PullEvent) => void;
  readonly #onFullStore: () => void;
  readonly #targets = new TargetRenewals((message) => this.#post(message));
  #closed = false;

  constructor(options: {
    channel: string;
    session: MirroredSession;
    patience: Patience;
    emit: (event: PullEvent) => void;
    onFullStore: () => void;
  }) {
    this.#channel = new BroadcastChannel(options.channel);
    this.#session = options.session;
    this.#patience = options.patience;
    this.#emit = options.emit;
    this.#onFullStore = options.onFullStore;
  }

  readonly handle = (event: WorkerEvent): void => {
    // The line about the request that failed can come behind the failure, by another port.
    if (this.#closed && event.event !== 'request') return;
    switch (event.event) {
      case 'miss':
        if (this.#patience.missed(event)) this.#emit({ event: 'miss', message: event.message });
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
      case 'target-expired':
        this.#targets.expired(event);
        break;
      case 'target-renewed':
        this.#targets.renewed(event.blobUrl, event.target);
        break;
      case 'target-failed':
        this.#targets.failed(event.blobUrl, event.target);
        break;
      case 'store-full':
        this.#onFullStore();
        break;
      case 'request':
        this.#emit({ event: 'debug', line: event.line });
        break;
    }
  };

  /** What was on its way is not heard any more, but lines about requests. */
  close(): void {
    this.#closed = true;
    this.#channel.close();
  }

  readonly #post = (message: MainMessage): void => {
    if (!this.#closed) this.#channel.postMessage(message);
  };

  async #refresh(stale: string, endpoint: number): Promise<void> {
    try {
      this.#post({
        message: 'authorization',
        endpoint,
        stale,
        ...(await this.#session.access(endpoint, stale)),
      });
    } catch (error) {
      this.#post({ message: 'authorization-failed', endpoint, stale, failure: toFailure(error) });
    }
  }
}
