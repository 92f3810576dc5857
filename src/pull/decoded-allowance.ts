import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/decoded-limits.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import { createDecodedRoom, type DecodedRoom, roomLeft, takeRoom } from '../pool/decoded-room.js';
import type { WantedLayer } from './layer.js';

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
