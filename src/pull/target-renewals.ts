import type { MainMessage } from '../pool/messages.js';

interface Blob {
  /** Where the registry last led, as far as is known here. */
  latest: string | undefined;
  /** A thread is asking the registry. */
  renewing: boolean;
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

  /** A target is refused from now on; undefined: a thread knows none. Answered by the latest one, or by leave to ask, or once another thread has asked. */
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
    if (blob.renewing) return;
    if (blob.latest !== undefined && blob.latest !== target) {
      this.#post({ message: 'target', blobUrl, target: blob.latest, thread });
      return;
    }
    blob.renewing = true;
    this.#post({ message: 'renew-target', blobUrl, thread });
  }

  /** The thread that had leave to ask has found a target, or none: then each asks for itself. */
  renewed(blobUrl: string, target: string | undefined): void {
    this.#blobs.set(blobUrl, { latest: target, renewing: false });
    this.#post({ message: 'target', blobUrl, target });
  }

  /** A target failed: nobody is to be sent there any more. */
  failed(blobUrl: string, target: string): void {
    const blob = this.#blob(blobUrl);
    if (blob.latest === target) blob.latest = undefined;
  }

  #blob(blobUrl: string): Blob {
    const blob = this.#blobs.get(blobUrl) ?? { latest: undefined, renewing: false };
    this.#blobs.set(blobUrl, blob);
    return blob;
  }
}
