/** Free buffers of this thread, all of `size` bytes: receiving reuses them, as 64 KiB a chunk would keep the GC busy. */
const free: Buffer[] = [];
let size = 0;

/** Kept free buffers; more than the tasks of a thread use at a time would never be used again. */
const MOST_FREE = 32;

/** A buffer of at least `bytes` bytes. */
export function takeBuffer(bytes: number): Buffer {
  if (bytes > size) {
    free.length = 0;
    size = bytes;
  }
  return free.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Gives a buffer back; its owner must not touch it any more. */
export function giveBuffer(buffer: Buffer): void {
  if (buffer.length === size && free.length < MOST_FREE) free.push(buffer);
}
