/**
 * Lets the main thread observe and stop a range that a worker fetches: two words of shared memory.
 * The first counts the received bytes, modulo 2^32, which is more than a range has; the second is 1
 * after a request to stop.
 */
export type RangeControl = Uint32Array<SharedArrayBuffer>;

const RECEIVED = 0;
const STOP = 1;
const WORDS = 2;

/** Returns the control of a range that has received nothing. */
export function createRangeControl(): RangeControl {
  return new Uint32Array(new SharedArrayBuffer(WORDS * Uint32Array.BYTES_PER_ELEMENT));
}

/** Resets it for the next range. */
export function resetControl(control: RangeControl): void {
  control.fill(0);
}

/** Returns the number of bytes received so far. */
export function receivedBytes(control: RangeControl): number {
  return Atomics.load(control, RECEIVED);
}

/** Counts bytes received; the worker's side. */
export function noteReceived(control: RangeControl, bytes: number): void {
  Atomics.add(control, RECEIVED, bytes);
}

/** Requests that the worker end the range where it is. */
export function requestStop(control: RangeControl): void {
  Atomics.store(control, STOP, 1);
}

/** Returns whether the range must stop: true once for each `requestStop`. The worker's side. */
export function consumeStop(control: RangeControl): boolean {
  return Atomics.load(control, STOP) === 1 && Atomics.exchange(control, STOP, 0) === 1;
}
