import { parentPort, workerData } from 'node:worker_threads';
import { onFullDisk } from '../src/files/disk-space.js';
import { openPacksOf } from '../src/pool/counters.js';
import type { NetworkSetup, WorkerEvent, WorkerSetup } from '../src/pool/messages.js';
import { shareOpenPacks } from '../src/store/pack-reader.js';
import { PackWriter } from '../src/store/pack-writer.js';
import { type StorePaths, storePaths } from '../src/store/paths.js';

/** What every task of this thread shares: the set-up it was started with, the store, and this thread's own pack. */
export const setup = workerData as WorkerSetup;

/** How to ask a registry; only pools that fetch have it. */
export function network(): NetworkSetup {
  if (setup.network === undefined) throw new Error('this pool was started without a network');
  return setup.network;
}

shareOpenPacks(openPacksOf(setup.counters));

export const paths: StorePaths = storePaths(setup.storeRoot, setup.isReadOnly);

const { spareRoom } = setup;
if (spareRoom !== undefined) {
  onFullDisk(() => {
    if (Atomics.load(spareRoom, 0) === 0) tell({ event: 'store-full' });
    Atomics.wait(spareRoom, 0, 0);
    return true;
  });
}

let writer: PackWriter | undefined;

/** The pack of this thread: written by nobody else, opened at its first byte. */
export function packWriter(): PackWriter {
  writer ??= new PackWriter(paths);
  return writer;
}

/** Tells the main thread; it may arrive after the task's own outcome. */
export function tell(event: WorkerEvent): void {
  parentPort?.postMessage(event);
}
