/**
 * Free buffers of this thread, all of `size` bytes, the size of the first one taken: spans of one pull ask for the same.
 * Receiving reuses them, as making new ones would keep the GC busy.
 */
const free: Buffer[] = [];
let size = 0;

/** Kept free buffers; more than the tasks of a thread use at a time would never be used again. */
const MOST_FREE = 32;

/** A buffer of at least `bytes` bytes. */
export function takeBuffer(bytes: number): Buffer {
  if (size === 0) size = bytes;
  if (bytes > size) return Buffer.allocUnsafeSlow(bytes);
  return free.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Gives a buffer back; its owner must not touch it any more. */
export function giveBuffer(buffer: Buffer): void {
  if (buffer.length === size && free.length < MOST_FREE) free.push(buffer);
}
