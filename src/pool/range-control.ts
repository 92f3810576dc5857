/**
 * What the main thread sees of a range while a worker fetches it, and what it may ask of it: two words of shared memory. The first
 * counts the bytes received, modulo 2^32, which is more than a range has; the second is 1 when the range is asked to stop.
 */
export type RangeControl = Uint32Array<SharedArrayBuffer>;

const RECEIVED = 0;
const STOP = 1;
const WORDS = 2;

/** For a range of which nothing has been received. */
export function createRangeControl(): RangeControl {
  return new Uint32Array(new SharedArrayBuffer(WORDS * Uint32Array.BYTES_PER_ELEMENT));
}

/** Makes it that of the next range. */
export function resetControl(control: RangeControl): void {
  control.fill(0);
}

/** Bytes received so far. */
export function receivedBytes(control: RangeControl): number {
  return Atomics.load(control, RECEIVED);
}

/** Counts bytes received; the worker's side. */
export function noteReceived(control: RangeControl, bytes: number): void {
  Atomics.add(control, RECEIVED, bytes);
}

/** Asks the worker to end the range where it is. */
export function requestStop(control: RangeControl): void {
  Atomics.store(control, STOP, 1);
}

/** Whether the range is asked to stop; true once for each `requestStop`. The worker's side. */
export function consumeStop(control: RangeControl): boolean {
  return Atomics.load(control, STOP) === 1 && Atomics.exchange(control, STOP, 0) === 1;
}
