import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Bytes outside the JS heap that a thread lets go of between two young collections. V8 collects by the growth of its own
 * heap, which hardly grows here, while each decoded piece leaves a dead MiB outside it. Measured over 1.1 GB: peak
 * memory 326 MB without, 299 MB with it, and 0.1 to 0.2 CPU s less, as memory is used again while it is in the cache.
 */
const COLLECT_EVERY_BYTES = 8 * 2 ** 20;

let collect: ((options: { type: 'minor' }) => void) | undefined;
let dropped = 0;

/** Notes that `bytes` bytes of buffers are dead, and collects the young generation when it is worth it. */
export function noteGarbage(bytes: number): void {
  dropped += bytes;
  if (dropped < COLLECT_EVERY_BYTES) return;
  dropped = 0;
  collect ??= exposeCollector();
  collect({ type: 'minor' });
}

function exposeCollector(): NonNullable<typeof collect> {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}
