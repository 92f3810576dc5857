import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { FollowedLayer } from '../pool/layer-follower.js';
import type { VerifyLayerResult } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { KnownLayer } from './layer.js';
import type { PullContext } from './pull-context.js';

/**
 * How long the tar of a stream is becomes known at its end. Tags are made for this many times its blob, and for a GiB at least; a follower
 * gives up a longer tar.
 */
const USUAL_RATIO = 16;
const SMALL_TAR_BYTES = 2 ** 30;

/** A layer that claims to be larger is not followed: no tags are made for what hardly fits on a disk. They take 12 bytes a MiB. */
const MAX_FOLLOWED_TAR_BYTES = 2 ** 40;

/**
 * The hash of one layer, computed in a worker behind the front of what is on disk: extents go to it as they come,
 * in tar order, and at the end it answers with the digest of all.
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
    const mostTarBytes = metadata?.table.tarBytes ?? Math.max(SMALL_TAR_BYTES, USUAL_RATIO * blob.sizeBytes);
    if (mostTarBytes <= MAX_FOLLOWED_TAR_BYTES)
      this.#followed = context.follower?.follow(diffId, mostTarBytes);
  }

  /** The next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count === 0) return;
    this.#open().postMessage(extents.toRows());
    this.#followed?.feed(extents.toRows());
  }

  /**
   * No more to come: the digest of everything fed, or null when a pack does not have all of it any more. Where only zeros at
   * the end are missing for the DiffID, they are appended to `extents`, all that was fed, and the DiffID is the answer.
   */
  async end(extents: ExtentList): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    const { digest, isTagged, padding } = await this.#result!.finally(() => port.close());
    if (padding !== undefined) {
      const zeros = new ExtentList();
      zeros.push(padding.pack as PackId, padding.packOffset, padding.lengthBytes);
      extents.append(zeros);
      this.#context.packs.add(padding.pack as PackId);
      this.#followed?.feed(zeros.toRows());
    }
    this.#followed?.end(digest === this.#diffId && isTagged);
    return digest;
  }

  /** The digest is not needed any more. */
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
