import type { Digest } from '../format/digest.js';
import type { FollowedLayer, LayerFollower } from '../pool/layer-follower.js';
import type { BlockTagRows } from '../pool/messages.js';
import { createBlockTags, createPartRecords } from './block-tags.js';

/** Keeps the tags that the proofs of a pull leave, so that the export that follows it hashes none of these layers again. */
export class TagFollower implements LayerFollower {
  readonly tags = new Map<Digest, BlockTagRows>();
  readonly proven = new Set<Digest>();
  readonly #records = createPartRecords();

  begin(): void {}

  follow(diffId: Digest, mostTarBytes: number): FollowedLayer {
    const tags = createBlockTags(mostTarBytes, this.#records);
    return {
      tags,
      feed: () => {},
      // The last of several attempts counts.
      end: (isProven) => {
        if (!isProven) return;
        this.tags.set(diffId, tags);
        this.proven.add(diffId);
      },
    };
  }
}
