import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/decoded-limits.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import { createDecodedRoom, type DecodedRoom, roomLeft, takeRoom } from '../pool/counters.js';
import type { WantedLayer } from './layer.js';

/** Memory for the metadata of several layers that are read at a time; a layer that needs more is read alone. */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/**
 * The same of all layers of a pull, one after the other: 500,000 files with tar-split. Reading takes 2 to 8 ns of CPU time for
 * each byte of it, twice for a TOC with a tar-split: metadata that is made to be slow costs a few seconds. What is beyond is
 * pulled as one stream.
 */
const MAX_PULL_METADATA_BYTES = 768 * 2 ** 20;

/** Memory that the metadata of one pull's layers takes, booked before anything is read. */
export class MetadataBudget {
  #inUseBytes = 0;
  #totalBytes = 0;
  readonly #waiting: Array<{ readonly bytes: number; readonly start: () => void }> = [];

  /**
   * Counts so many bytes among those that the pull reads.
   * @throws PullError `unsupported` when they are more than it may
   */
  count(bytes: number): void {
    if (this.#totalBytes + bytes > MAX_PULL_METADATA_BYTES) {
      throw new PullError(
        'unsupported',
        `with its metadata those of all layers take ${this.#totalBytes + bytes} bytes; ${MAX_PULL_METADATA_BYTES} are the limit`,
      );
    }
    this.#totalBytes += bytes;
  }

  /** Waits until there is room for so many bytes, in the order of the calls. */
  take(bytes: number): Promise<void> {
    return new Promise((start) => {
      this.#waiting.push({ bytes, start });
      this.#advance();
    });
  }

  /** Gives back the room for so many bytes. */
  give(bytes: number): void {
    this.#inUseBytes -= bytes;
    this.#advance();
  }

  /** What `action` resolves to, which has so many bytes meanwhile. */
  async with<T>(bytes: number, action: () => Promise<T>): Promise<T> {
    await this.take(bytes);
    try {
      return await action();
    } finally {
      this.give(bytes);
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

type Layer = Pick<WantedLayer, 'blob' | 'diffId'>;

/** Counts what the layers of one pull decode to beyond MAX_DECODED_RATIO times their blobs. */
export class DecodedAllowance {
  readonly #room = createDecodedRoom(FREE_DECODED_BYTES);
  /** Bytes beyond the ratio, by DiffID. A layer that is decoded again replaces what it wrote before: the most counts. */
  readonly #takenBytes = new Map<Digest, number>();

  /** What the task needs that decodes a layer as one stream, and takes of the room what it needs. */
  forStream({ diffId }: Layer): { readonly room: DecodedRoom; readonly takenBytes: number } {
    return { room: this.#room, takenBytes: this.#takenBytes.get(diffId) ?? 0 };
  }

  /** Notes that this task has decoded so many bytes. */
  noteStream(layer: Layer, tarBytes: number): void {
    const { takenBytes } = this.forStream(layer);
    this.#takenBytes.set(layer.diffId, Math.max(takenBytes, beyondRatio(layer, tarBytes)));
  }

  /**
   * Takes room for what a layer's table says that its blob decodes to.
   * @throws PullError `metadata-malformed` when that is too much, before anything is fetched
   */
  noteTable(layer: Layer, table: LayerTable): void {
    const { sizeBytes, layout, tarBytes } = table;
    const statedBytes = layout === 'tar-split' ? tarBytes : sizeBytes.reduce((sum, bytes) => sum + bytes, 0);
    const { room, takenBytes } = this.forStream(layer);
    const bytes = beyondRatio(layer, statedBytes);
    if (!takeRoom(room, Math.max(0, bytes - takenBytes))) {
      const blobBytes = layer.blob.sizeBytes;
      const mostBytes = blobBytes * MAX_DECODED_RATIO + takenBytes + roomLeft(room);
      throw new PullError(
        'metadata-malformed',
        `its metadata states ${statedBytes} bytes for a blob of ${blobBytes}; ${mostBytes} are the limit`,
      );
    }
    this.#takenBytes.set(layer.diffId, Math.max(takenBytes, bytes));
  }
}

function beyondRatio({ blob }: Pick<Layer, 'blob'>, tarBytes: number): number {
  return Math.max(0, tarBytes - blob.sizeBytes * MAX_DECODED_RATIO);
}

/** So many at a time, in the order in which they asked. */
export class Semaphore {
  #free: number;
  readonly #waiting: Array<() => void> = [];

  constructor(atATime: number) {
    this.#free = atATime;
  }

  /** Runs `action` when it is its turn; the turn ends with it. */
  async take<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
