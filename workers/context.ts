import { on } from 'node:events';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { onFullDisk } from '../src/files/disk-space.js';
import type { NetworkSetup, PackRun, WorkerEvent, WorkerSetup } from '../src/pool/messages.js';
import { openPacksOf } from '../src/pool/shared-memory.js';
import { threadClock } from '../src/pool/stage-clock.js';
import { ExtentList } from '../src/store/extents.js';
import { shareOpenPacks } from '../src/store/pack-reader.js';
import { PackWriter } from '../src/store/pack-writer.js';
import { type PackId, type StorePaths, storePaths } from '../src/store/paths.js';

/** What the tasks of this thread share: set-up, store, pack, messages and clock. */
export const setup = workerData as WorkerSetup;

/** Returns the network set-up. @throws Error in a pool that does not fetch */
export function network(): NetworkSetup {
  if (setup.network === undefined) throw new Error('this pool was started without a network');
  return setup.network;
}

shareOpenPacks(openPacksOf(setup.counters));

if (setup.stageRows !== undefined) threadClock.useRow(setup.stageRows);

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

/** Writes bytes to this thread's pack, without an index record. @throws PullError as PackWriter */
export function writeRun(bytes: Buffer): PackRun {
  const region = packWriter().reserve(bytes.length);
  packWriter().writeUnindexed(region, bytes, region.start);
  return { pack: region.pack, packOffset: region.start, lengthBytes: bytes.length };
}

/** Bytes that `PackedParts` collects for one write. */
const WRITE_BYTES = 2 ** 20;

/** Writes small parts of a tar to this thread's pack, many with one call. */
export class PackedParts {
  /** The extents of what was written; the caller may add others in between. */
  readonly extents = new ExtentList();
  /** The packs that were written to. */
  readonly packs = new Set<PackId>();
  #lengthBytes = 0;
  #parts: Buffer[] = [];

  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#lengthBytes += bytes.length;
    if (this.#lengthBytes >= WRITE_BYTES) this.flush();
  }

  /** Writes the remaining parts. */
  flush(): void {
    if (this.#lengthBytes === 0) return;
    const { pack, packOffset, lengthBytes } = writeRun(Buffer.concat(this.#parts));
    this.packs.add(pack);
    this.extents.push(pack, packOffset, lengthBytes);
    this.#parts = [];
    this.#lengthBytes = 0;
  }
}

/** Posts an event to the main thread; it may arrive after the outcome of the task. */
export function postEvent(event: WorkerEvent): void {
  parentPort?.postMessage(event);
}

/** Yields the messages of a port, in order, until `null`. */
export async function* portMessages<Message>(port: MessagePort): AsyncGenerator<Message> {
  for await (const [message] of on(port, 'message')) {
    if (message === null) return;
    yield message as Message;
  }
}

const TICK_MS = 100;

/** Receives bytes, and must process them after some time even if no more come. */
interface Receiver {
  tick(now: number): void;
}

const receivers = new Set<Receiver>();
let ticking: NodeJS.Timeout | undefined;

/** Calls `tick` of the receiver with `performance.now()` every TICK_MS until `unwatch`. */
export function watch(receiver: Receiver): void {
  receivers.add(receiver);
  ticking ??= setInterval(() => {
    const now = performance.now();
    for (const each of receivers) each.tick(now);
  }, TICK_MS);
}

export function unwatch(receiver: Receiver): void {
  receivers.delete(receiver);
  if (receivers.size > 0) return;
  clearInterval(ticking);
  ticking = undefined;
}
