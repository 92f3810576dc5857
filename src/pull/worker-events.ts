import { BroadcastChannel } from 'node:worker_threads';
import { toFailure } from '../format/error.js';
import type { MainMessage, WorkerEvent } from '../pool/messages.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import type { PullEvent } from './pull-events.js';
import type { Patience } from './retry-policy.js';

interface Blob {
  /** Where the registry last led, as far as is known here. */
  latest: string | undefined;
  /** Threads that wait for what another one finds at the registry; undefined while none asks it. */
  waiting: number[] | undefined;
}

/**
 * Lets one thread ask the registry where a blob's bytes are, at first and when the signed URL it led to has expired; what that
 * thread finds serves all. Threads that were led to different URLs catch up on the latest.
 */
export class TargetRenewals {
  readonly #blobs = new Map<string, Blob>();
  readonly #post: (message: MainMessage) => void;

  constructor(post: (message: MainMessage) => void) {
    this.#post = post;
  }

  /**
   * A thread's target is refused from now on; undefined: it knows none. It gets one answer: the latest target, or leave to ask the
   * registry, or what another thread finds there, which may be the same target again.
   */
  expired({
    blobUrl,
    target,
    thread,
  }: {
    blobUrl: string;
    target: string | undefined;
    thread: number;
  }): void {
    const blob = this.#blob(blobUrl);
    if (blob.waiting !== undefined) {
      blob.waiting.push(thread);
      return;
    }
    if (blob.latest !== undefined && blob.latest !== target) {
      this.#post({ message: 'target', blobUrl, target: blob.latest, thread });
      return;
    }
    blob.waiting = [];
    this.#post({ message: 'renew-target', blobUrl, thread });
  }

  /** The thread that had leave to ask has found a target, or none: then each asks for itself. */
  renewed(blobUrl: string, target: string | undefined): void {
    const { waiting = [] } = this.#blob(blobUrl);
    this.#blobs.set(blobUrl, { latest: target, waiting: undefined });
    for (const thread of waiting) this.#post({ message: 'target', blobUrl, target, thread });
  }

  /** A target failed: nobody is to be sent there any more. */
  failed(blobUrl: string, target: string): void {
    const blob = this.#blob(blobUrl);
    if (blob.latest === target) blob.latest = undefined;
  }

  #blob(blobUrl: string): Blob {
    const blob = this.#blobs.get(blobUrl) ?? { latest: undefined, waiting: undefined };
    this.#blobs.set(blobUrl, blob);
    return blob;
  }
}

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
