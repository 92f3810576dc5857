import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { VerifyLayerResult } from '../pool/messages.js';
import type { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { PullContext } from './context.js';

/**
 * The hash of one layer, computed in a worker behind the front of what is on disk: extents go to it as they come,
 * in tar order, and at the end it answers with the digest of all.
 */
export class LayerProver {
  readonly #context: PullContext;
  readonly #diffId: Digest;
  #port: MessagePort | undefined;
  #result: Promise<VerifyLayerResult> | undefined;

  constructor(context: PullContext, diffId: Digest) {
    this.#context = context;
    this.#diffId = diffId;
  }

  /** The next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count > 0) this.#open().postMessage(extents.toRows());
  }

  /**
   * No more to come: the digest of everything fed, or null when a pack does not have all of it any more. Where only zeros at
   * the end are missing for the DiffID, they are appended to `extents`, all that was fed, and the DiffID is the answer.
   */
  async end(extents: ExtentList): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    const { digest, padding } = await this.#result!.finally(() => port.close());
    if (padding !== undefined) {
      extents.push(padding.pack as PackId, padding.packOffset, padding.lengthBytes);
      this.#context.packs.add(padding.pack as PackId);
    }
    return digest;
  }

  /** Nobody wants to know any more. */
  abandon(): void {
    const port = this.#port;
    port?.postMessage(null);
    this.#result?.catch(() => {}).then(() => port?.close());
  }

  #open(): MessagePort {
    if (this.#port === undefined) {
      const { port1, port2 } = new MessageChannel();
      this.#port = port1;
      const task = { task: 'verify-layer', diffId: this.#diffId, port: port2 } as const;
      this.#result = this.#context.support.run(task, [port2]);
      this.#result.catch(() => {}); // whoever calls end() hears of it
    }
    return this.#port;
  }
}
