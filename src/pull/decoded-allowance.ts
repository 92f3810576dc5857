import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/decoded-limits.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import type { WantedLayer } from './layer.js';

type Layer = Pick<WantedLayer, 'blob' | 'diffId'>;

/** Counts what the layers of one pull decode to beyond MAX_DECODED_RATIO times their blobs. */
export class DecodedAllowance {
  /** Bytes beyond the ratio, by DiffID. A layer that is decoded again replaces what it wrote before: the most counts. */
  readonly #beyondBytes = new Map<Digest, number>();

  /** Bytes beyond the ratio that a layer may decode to: what the other layers leave of FREE_DECODED_BYTES. */
  freeBytes({ diffId }: Pick<Layer, 'diffId'>): number {
    let freeBytes = FREE_DECODED_BYTES;
    for (const [other, bytes] of this.#beyondBytes) if (other !== diffId) freeBytes -= bytes;
    return Math.max(0, freeBytes);
  }

  /** Notes that a layer has decoded, or will decode, to so many bytes. */
  note({ blob, diffId }: Layer, tarBytes: number): void {
    const bytes = Math.max(0, tarBytes - blob.sizeBytes * MAX_DECODED_RATIO);
    this.#beyondBytes.set(diffId, Math.max(bytes, this.#beyondBytes.get(diffId) ?? 0));
  }

  /**
   * Notes what a layer's table says that its blob decodes to.
   * @throws PullError `metadata-malformed` when that is too much, before anything is fetched
   */
  noteTable(layer: Layer, table: LayerTable): void {
    const { sizeBytes, layout, tarBytes } = table;
    const statedBytes = layout === 'split' ? tarBytes : sizeBytes.reduce((sum, bytes) => sum + bytes, 0);
    const blobBytes = layer.blob.sizeBytes;
    const mostBytes = blobBytes * MAX_DECODED_RATIO + this.freeBytes(layer);
    if (statedBytes > mostBytes) {
      throw new PullError(
        'metadata-malformed',
        `its metadata states ${statedBytes} bytes for a blob of ${blobBytes}; ${mostBytes} are the limit`,
      );
    }
    this.note(layer, statedBytes);
  }
}
