import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import type { ExtentList } from '../store/extents.js';

/**
 * The hash of one layer, computed in a worker behind the front of what is on disk: extents go to it as they come,
 * in tar order, and at the end it answers with the digest of all.
 */
export class LayerProver {
  readonly #pool: WorkerPool;
  #port: MessagePort | undefined;
  #digest: Promise<Digest | null> | undefined;

  constructor(pool: WorkerPool) {
    this.#pool = pool;
  }

  /** The next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count > 0) this.#open().postMessage(extents.toRows());
  }

  /** No more to come: the digest of everything fed, or null when a pack does not have all of it any more. */
  end(): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    return this.#digest!.finally(() => port.close());
  }

  #open(): MessagePort {
    if (this.#port === undefined) {
      const { port1, port2 } = new MessageChannel();
      this.#port = port1;
      this.#digest = this.#pool
        .run({ task: 'verify-layer', port: port2 }, [port2])
        .then((result) => result.digest);
      this.#digest.catch(() => {}); // whoever calls end() hears of it
    }
    return this.#port;
  }
}
