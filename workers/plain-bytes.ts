import type { ExtentList } from '../src/store/extents.js';
import type { PackId } from '../src/store/paths.js';
import { packWriter } from './context.js';

/** Bytes to collect for one write. */
const WRITE_BYTES = 2 ** 20;

/** Writes small parts to this thread's pack, many with one call. */
export class PlainBytes {
  /** The packs that were written to. */
  readonly packs = new Set<PackId>();
  #lengthBytes = 0;
  #parts: Buffer[] = [];

  /** Adds bytes. Appends the extent of those that it writes to `extents`. */
  add(bytes: Buffer, extents: ExtentList): void {
    this.#parts.push(bytes);
    this.#lengthBytes += bytes.length;
    if (this.#lengthBytes >= WRITE_BYTES) this.flush(extents);
  }

  /** Writes the rest, and appends its extent. */
  flush(extents: ExtentList): void {
    if (this.#lengthBytes === 0) return;
    const writer = packWriter();
    const region = writer.reserve(this.#lengthBytes);
    writer.writeUnindexed(region, Buffer.concat(this.#parts), region.start);
    this.packs.add(region.pack);
    extents.push(region.pack, region.start, this.#lengthBytes);
    this.#parts = [];
    this.#lengthBytes = 0;
  }
}
