import { type Digest, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { BlockTagRows, ExportedLayer, FollowedLayer, LayerFollower } from '../pool/messages.js';
import type { CounterReader } from '../pool/shared-memory.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import type { ExtentRows } from '../store/extents.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { changedLayer, createBlockTags, createPartRecords } from './block-tags.js';

/**
 * Limit of the tars of all layers of one file system. Their tags take 48 bytes a MiB. It exceeds
 * every image and most disks.
 */
const MAX_FILES_TAR_BYTES = 2 ** 44;

/** A layer as its record in the store describes it. */
export interface StoredLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tarBytes: number;
}

/** A layer with tags, which show that all threads read the same bytes of it. */
export type TaggedLayer = StoredLayer & ExportedLayer;

/** Tags and proofs of layers that were read before the export. */
export interface FollowedLayers {
  /** Threads for the export to use and to end. */
  readonly pool?: WorkerPool;
  /** Bytes that these threads have written. */
  readonly written?: CounterReader;
  readonly tags: ReadonlyMap<Digest, BlockTagRows>;
  /**
   * Layers that were hashed, so that the tags of all their blocks are those of the hashed bytes.
   */
  readonly proven: ReadonlySet<Digest>;
}

/**
 * Records the tags of the layers that a pull verifies, so that the export after it does not hash
 * them again.
 */
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
      // Each attempt has tags of its own: those of the last one are valid.
      end: (isProven) => {
        if (!isProven) return;
        this.tags.set(diffId, tags);
        this.proven.add(diffId);
      },
    };
  }
}

/**
 * Reads the records of layers, each one once.
 * @throws PullError `store-broken` when a layer is missing from the store
 */
export function readStoredLayers(paths: StorePaths, diffIds: readonly string[]): StoredLayer[] {
  const known = new Map<string, StoredLayer>();
  return diffIds.map((diffId) => {
    const layer = known.get(diffId) ?? readStoredLayer(paths, parseDigest(diffId, 'DiffID'));
    known.set(diffId, layer);
    return layer;
  });
}

function readStoredLayer(paths: StorePaths, diffId: Digest): StoredLayer {
  const record = readLayerRecord(paths, diffId);
  if (record === undefined) {
    throw new PullError('store-broken', `layer ${diffId} is not in the store ${paths.root} any more`, {
      layer: diffId,
      hint: 'pull the image again',
    });
  }
  return { diffId, extents: record.extents.toRows(), tarBytes: record.extents.lengthBytes };
}

/**
 * Adds tags to layers, those in `known` or new ones; a layer that occurs twice has the same tags.
 * @throws PullError `unsupported` beyond 16 TiB
 */
export function tagLayers(layers: readonly StoredLayer[], known?: FollowedLayers['tags']): TaggedLayer[] {
  const each = distinct(layers);
  const tarBytes = totalTarBytes(each);
  if (tarBytes > MAX_FILES_TAR_BYTES) {
    throw new PullError('unsupported', `the tars of the layers have ${tarBytes} bytes: more than 16 TiB`, {
      hint: 'export the layers as they are, with layers:DIR',
    });
  }
  const records = createPartRecords();
  const tagged = new Map(
    each.map((layer) => {
      const tags = known?.get(layer.diffId) ?? createBlockTags(layer.tarBytes, records);
      return [layer.diffId, { ...layer, tags }];
    }),
  );
  return layers.map(({ diffId }) => tagged.get(diffId)!);
}

/** Returns each layer once, in the order of first occurrence. */
export function distinct<L extends StoredLayer>(layers: readonly L[]): L[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

/** Returns the total size of the layers' tars, in bytes. */
export function totalTarBytes(layers: readonly StoredLayer[]): number {
  return layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
}

/**
 * Hashes each layer once, the largest first.
 * @throws PullError `digest-mismatch` for a damaged layer, or for one that changed since it was
 *   read
 */
export async function proveLayers(pool: WorkerPool, layers: readonly TaggedLayer[]): Promise<void> {
  const each = distinct(layers).sort((a, b) => b.tarBytes - a.tarBytes);
  await Promise.all(each.map((layer) => proveLayer(pool, layer)));
}

async function proveLayer(pool: WorkerPool, { diffId, extents, tags }: TaggedLayer): Promise<void> {
  const { isIntact, changed, falsePaths } = await pool.run({ task: 'check-layer', diffId, extents, tags });
  if (!isIntact) throw damaged(diffId, falsePaths);
  if (changed) throw changedLayer(diffId);
}

/**
 * Returns the error for a layer that did not hash to its DiffID. Marks the damaged contents, so
 * that the next pull fetches them again.
 */
export async function damageOf(pool: WorkerPool, { diffId, extents }: StoredLayer): Promise<PullError> {
  const { falsePaths } = await pool.run({ task: 'check-layer', diffId, extents });
  return damaged(diffId, falsePaths);
}

function damaged(diffId: Digest, falsePaths: readonly string[]): PullError {
  const where = falsePaths.length === 0 ? '' : `, in ${falsePaths[0]}`;
  return new PullError('digest-mismatch', `layer ${diffId} is damaged in the store${where}`, {
    layer: diffId,
    hint: 'run zpull store verify, then pull the image again: only what is damaged is fetched',
  });
}
