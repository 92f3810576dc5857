import { parentPort, workerData } from 'node:worker_threads';
import { onFullDisk } from '../src/files/disk-space.js';
import type { NetworkSetup, WorkerEvent, WorkerSetup } from '../src/pool/messages.js';
import { openPacksOf } from '../src/pool/shared-memory.js';
import { shareOpenPacks } from '../src/store/pack-reader.js';
import { PackWriter } from '../src/store/pack-writer.js';
import { type StorePaths, storePaths } from '../src/store/paths.js';

/** What the tasks of this thread share: its set-up, the store, and this thread's pack. */
export const setup = workerData as WorkerSetup;

/** Returns the network set-up. @throws Error in a pool that does not fetch */
export function network(): NetworkSetup {
  if (setup.network === undefined) throw new Error('this pool was started without a network');
  return setup.network;
}

shareOpenPacks(openPacksOf(setup.counters));

export const paths: StorePaths = storePaths(setup.storeRoot, setup.isReadOnly);

const { spareRoom } = setup;
if (spareRoom !== undefined) {
  onFullDisk(() => {
    if (Atomics.load(spareRoom, 0) === 0) postEvent({ event: 'store-full' });
    Atomics.wait(spareRoom, 0, 0);
    return true;
  });
}

let writer: PackWriter | undefined;

/**
 * Returns the writer of this thread's pack, which no other thread writes. It is opened at its first
 * byte.
 */
export function packWriter(): PackWriter {
  writer ??= new PackWriter(paths);
  return writer;
}

/** Posts an event to the main thread; it may arrive after the outcome of the task. */
export function postEvent(event: WorkerEvent): void {
  parentPort?.postMessage(event);
}
