import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { FollowedLayer } from '../pool/layer-follower.js';
import type { VerifyLayerResult } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { KnownLayer } from './layer.js';
import type { PullContext } from './pull-context.js';

/**
 * The tar length of an opaque layer is unknown until its end. There are tags for this many times
 * its blob, and for at least 1 GiB; a follower gives up a longer tar.
 */
const USUAL_RATIO = 16;
const SMALL_TAR_BYTES = 2 ** 30;

/**
 * A layer that states to be larger is not followed: it hardly fits on a disk. Tags take 12 bytes a
 * MiB.
 */
const MAX_FOLLOWED_TAR_BYTES = 2 ** 40;

/**
 * Hashes one layer in a worker, behind its front: sends it extents as they arrive, in tar order.
 */
export class LayerProver {
  readonly #context: PullContext;
  readonly #diffId: Digest;
  readonly #followed: FollowedLayer | undefined = undefined;
  #port: MessagePort | undefined;
  #result: Promise<VerifyLayerResult> | undefined;

  constructor(context: PullContext, { diffId, metadata, blob }: KnownLayer) {
    this.#context = context;
    this.#diffId = diffId;
    const maxTarBytes = metadata?.table.tarBytes ?? Math.max(SMALL_TAR_BYTES, USUAL_RATIO * blob.sizeBytes);
    if (maxTarBytes <= MAX_FOLLOWED_TAR_BYTES) this.#followed = context.follower?.follow(diffId, maxTarBytes);
  }

  /** Adds the next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count === 0) return;
    this.#open().postMessage(extents.toRows());
    this.#followed?.feed(extents.toRows());
  }

  /**
   * Returns the digest of all bytes, or null when a pack does not have all of them any more.
   * `extents` are all that was fed. If only zeros at the end are missing for the DiffID, appends
   * them to `extents` and returns the DiffID.
   */
  async end(extents: ExtentList): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    const { digest, isTagged, padding } = await this.#result!.finally(() => port.close());
    if (padding !== undefined) {
      const zeros = new ExtentList();
      zeros.push(padding.pack, padding.packOffset, padding.lengthBytes);
      extents.append(zeros);
      this.#context.packs.add(padding.pack);
      this.#followed?.feed(zeros.toRows());
    }
    this.#followed?.end(digest === this.#diffId && isTagged);
    return digest;
  }

  /** Ends the hash without its digest. */
  abandon(): void {
    const port = this.#port;
    this.#followed?.end(false);
    port?.postMessage(null);
    this.#result?.catch(() => {}).then(() => port?.close());
  }

  #open(): MessagePort {
    if (this.#port === undefined) {
      const { port1, port2 } = new MessageChannel();
      this.#port = port1;
      const task = { task: 'verify-layer', diffId: this.#diffId, port: port2 } as const;
      const tags = this.#followed?.tags;
      this.#result = this.#context.support.run(tags === undefined ? task : { ...task, tags }, [port2]);
      this.#result.catch(() => {}); // `end` throws it
    }
    return this.#port;
  }
}
