/**
 * Free buffers of this thread. Most are of `size` bytes, the size of the first one taken: spans of one pull ask for the same. Receiving uses
 * them again, as making new ones would keep the GC busy.
 */
const free: Buffer[] = [];
let size = 0;

/** Larger ones, for frames that are larger than that: of several spans such frames are about as large. */
const freeLarge: Buffer[] = [];
let freeLargeBytes = 0;

/** Kept free buffers; more than the tasks of a thread use at a time would never be used again. */
const MOST_FREE = 32;

/** What larger ones that are free may take together: as much as one of the largest frames. */
const MAX_FREE_LARGE_BYTES = 32 * 2 ** 20;

/** Larger buffers have a multiple of this, so that the next frame fits that is a little longer. What is not written of it takes no memory. */
const STEP_BYTES = 2 ** 20;

/** A buffer of at least `bytes` bytes. */
export function takeBuffer(bytes: number): Buffer {
  if (size === 0) size = bytes;
  if (bytes > size) return takeLarge(bytes);
  return free.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Gives a buffer back; its owner must not touch it any more. */
export function giveBuffer(buffer: Buffer): void {
  if (buffer.length > size) giveLarge(buffer);
  else if (free.length < MOST_FREE) free.push(buffer);
}

function takeLarge(bytes: number): Buffer {
  const row = freeLarge.findIndex(({ length }) => length >= bytes);
  if (row < 0) return Buffer.allocUnsafeSlow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES);
  const [buffer] = freeLarge.splice(row, 1);
  freeLargeBytes -= buffer!.length;
  return buffer!;
}

function giveLarge(buffer: Buffer): void {
  if (freeLargeBytes + buffer.length > MAX_FREE_LARGE_BYTES) return;
  freeLarge.push(buffer);
  freeLargeBytes += buffer.length;
}
