import type { MainMessage } from '../pool/messages.js';

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
