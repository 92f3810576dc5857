import { BroadcastChannel } from 'node:worker_threads';
import { toFailure } from '../format/error.js';
import type { MainMessage, WorkerEvent } from '../pool/messages.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import type { PullEvent } from './pull-events.js';
import type { KarmaRetryPolicy } from './retry-policy.js';

interface Blob {
  /** The latest known target of a redirect. */
  latest: string | undefined;
  /** Threads that wait for the request of another one; undefined while there is none. */
  waiting: number[] | undefined;
}

/**
 * Lets one thread request a blob's redirect target from the registry, at first and when a signed
 * URL has expired, and sends its answer to all. Threads with different targets change to the latest
 * one.
 */
export class TargetRenewals {
  readonly #blobs = new Map<string, Blob>();
  readonly #post: (message: MainMessage) => void;

  constructor(post: (message: MainMessage) => void) {
    this.#post = post;
  }

  /**
   * A thread's target has expired, or it has none. It gets one answer: the latest target,
   * permission to request one, or what another thread receives, which may be the same target again.
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

  /**
   * The thread with permission has received a target, or none: then each thread requests its own.
   */
  renewed(blobUrl: string, target: string | undefined): void {
    const { waiting = [] } = this.#blob(blobUrl);
    this.#blobs.set(blobUrl, { latest: target, waiting: undefined });
    for (const thread of waiting) this.#post({ message: 'target', blobUrl, target, thread });
  }

  /** A target does not work; no thread is sent there any more. */
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

/**
 * Handles the events of running tasks: passes failures to the retry policy, and renews stale tokens
 * and expired targets once for all workers.
 */
export class WorkerEvents {
  readonly #channel: BroadcastChannel;
  readonly #session: MirroredSession;
  readonly #retries: KarmaRetryPolicy;
  readonly #emit: (event: PullEvent) => void;
  readonly #onFullStore: () => void;
  readonly #targets = new TargetRenewals((message) => this.#post(message));
  #closed = false;

  constructor(options: {
    channel: string;
    session: MirroredSession;
    retries: KarmaRetryPolicy;
    emit: (event: PullEvent) => void;
    onFullStore: () => void;
  }) {
    this.#channel = new BroadcastChannel(options.channel);
    this.#session = options.session;
    this.#retries = options.retries;
    this.#emit = options.emit;
    this.#onFullStore = options.onFullStore;
  }

  readonly handle = (event: WorkerEvent): void => {
    // The debug line of a failed request can arrive after the failure, by another port.
    if (this.#closed && event.event !== 'request') return;
    switch (event.event) {
      case 'miss':
        if (this.#retries.missed(event)) this.#emit({ event: 'miss', message: event.message });
        break;
      case 'asking':
        this.#retries.countRequests(event.change);
        break;
      case 'throttled':
        this.#retries.throttled(event);
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

  /** Ignores all later events except debug lines. */
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
