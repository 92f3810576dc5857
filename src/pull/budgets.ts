import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/decoded-limits.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import { acquireRoom, createDecodedRoom, type DecodedRoom, roomLeft } from '../pool/counters.js';
import type { MissingLayer } from './layer.js';

/**
 * Memory for the metadata of layers that are read at the same time; a layer that needs more is read
 * alone.
 */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/**
 * Metadata of all layers of a pull together: 500,000 files with tar-split. Reading takes 2 to 8 ns
 * of CPU time a byte, twice for a TOC with a tar-split, so that metadata made to be slow costs a
 * few seconds. Layers beyond it are pulled as opaque ones.
 */
const MAX_PULL_METADATA_BYTES = 768 * 2 ** 20;

/**
 * Limits the memory for metadata of one pull's layers, which is acquired before anything is read.
 */
export class MetadataBudget {
  #inUseBytes = 0;
  #totalBytes = 0;
  readonly #waiting: Array<{ readonly bytes: number; readonly start: () => void }> = [];

  /**
   * Adds to the metadata that the pull reads in total.
   * @throws PullError `unsupported` beyond the limit
   */
  count(bytes: number): void {
    if (this.#totalBytes + bytes > MAX_PULL_METADATA_BYTES) {
      throw new PullError(
        'unsupported',
        `with it, the metadata of all layers takes ${this.#totalBytes + bytes} bytes; the limit is ${MAX_PULL_METADATA_BYTES}`,
      );
    }
    this.#totalBytes += bytes;
  }

  /** Waits until so many bytes are free, in the order of the calls. */
  acquire(bytes: number): Promise<void> {
    return new Promise((start) => {
      this.#waiting.push({ bytes, start });
      this.#advance();
    });
  }

  release(bytes: number): void {
    this.#inUseBytes -= bytes;
    this.#advance();
  }

  /** Runs `action` with so many bytes acquired. */
  async with<T>(bytes: number, action: () => Promise<T>): Promise<T> {
    await this.acquire(bytes);
    try {
      return await action();
    } finally {
      this.release(bytes);
    }
  }

  #advance(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#inUseBytes > 0 && this.#inUseBytes + next.bytes > METADATA_BUDGET_BYTES) return;
      this.#waiting.shift();
      this.#inUseBytes += next.bytes;
      next.start();
    }
  }
}

type Layer = Pick<MissingLayer, 'blob' | 'diffId'>;

/** Limits what the layers of one pull decode to beyond MAX_DECODED_RATIO times their blobs. */
export class DecodedAllowance {
  readonly #room = createDecodedRoom(FREE_DECODED_BYTES);
  /**
   * Bytes beyond the ratio, by DiffID: the maximum, as a layer decoded again replaces its earlier
   * bytes.
   */
  readonly #acquiredBytes = new Map<Digest, number>();

  /** The limit for a task that decodes an opaque layer, which acquires room itself. */
  forOpaque({ diffId }: Layer): { readonly room: DecodedRoom; readonly takenBytes: number } {
    return { room: this.#room, takenBytes: this.#acquiredBytes.get(diffId) ?? 0 };
  }

  /** Notes how many bytes that task has decoded. */
  noteOpaque(layer: Layer, tarBytes: number): void {
    const { takenBytes } = this.forOpaque(layer);
    this.#acquiredBytes.set(layer.diffId, Math.max(takenBytes, beyondRatio(layer, tarBytes)));
  }

  /**
   * Acquires room for the decoded size that a layer's table states, before anything is fetched.
   * @throws PullError `metadata-malformed` beyond the limit
   */
  noteTable(layer: Layer, table: LayerTable): void {
    const { sizeBytes, layout, tarBytes } = table;
    const statedBytes = layout === 'tar-split' ? tarBytes : sizeBytes.reduce((sum, bytes) => sum + bytes, 0);
    const { room, takenBytes } = this.forOpaque(layer);
    const bytes = beyondRatio(layer, statedBytes);
    if (!acquireRoom(room, Math.max(0, bytes - takenBytes))) {
      const blobBytes = layer.blob.sizeBytes;
      const maxBytes = blobBytes * MAX_DECODED_RATIO + takenBytes + roomLeft(room);
      throw new PullError(
        'metadata-malformed',
        `its metadata states ${statedBytes} bytes for a blob of ${blobBytes}; the limit is ${maxBytes}`,
      );
    }
    this.#acquiredBytes.set(layer.diffId, Math.max(takenBytes, bytes));
  }
}

function beyondRatio({ blob }: Pick<Layer, 'blob'>, tarBytes: number): number {
  return Math.max(0, tarBytes - blob.sizeBytes * MAX_DECODED_RATIO);
}

/** A counting semaphore, first come, first served. */
export class Semaphore {
  #free: number;
  readonly #waiting: Array<() => void> = [];

  constructor(permits: number) {
    this.#free = permits;
  }

  /** Runs `action` with a permit, which is released when it settles. */
  async with<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      this.#release();
    }
  }

  #release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
