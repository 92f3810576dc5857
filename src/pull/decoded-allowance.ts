import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../format/decoded-limits.js';
import { PullError } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import type { WantedLayer } from './layer.js';

/** What all layers of one pull may still decode to beyond MAX_DECODED_RATIO times their blobs. */
export class DecodedAllowance {
  #freeBytes = FREE_DECODED_BYTES;

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Takes note that a blob of so many bytes has decoded, or will, to so many. */
  note(blobBytes: number, tarBytes: number): void {
    const beyond = Math.max(0, tarBytes - blobBytes * MAX_DECODED_RATIO);
    this.#freeBytes = Math.max(0, this.#freeBytes - beyond);
  }

  /**
   * Takes note of what a layer's table says that its blob decodes to.
   * @throws PullError `metadata-malformed` when that is too much, before anything is fetched
   */
  noteTable({ blob }: WantedLayer, table: LayerTable): void {
    const { sizeBytes, layout, tarBytes } = table;
    const statedBytes = layout === 'split' ? tarBytes : sizeBytes.reduce((sum, bytes) => sum + bytes, 0);
    const mostBytes = blob.sizeBytes * MAX_DECODED_RATIO + this.#freeBytes;
    if (statedBytes > mostBytes) {
      throw new PullError(
        'metadata-malformed',
        `its metadata states ${statedBytes} bytes for a blob of ${blob.sizeBytes}; ${mostBytes} are the limit`,
      );
    }
    this.note(blob.sizeBytes, statedBytes);
  }
}
