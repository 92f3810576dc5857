import { closeSync, openSync, readSync } from 'node:fs';
import { PullError } from '../format/error.js';
import type { ExtentList } from './extents.js';
import { type PackId, packPath, type StorePaths } from './paths.js';
import { CALL_BYTES, storageError, systemCode } from './storage-error.js';

/** Packs open at a time in one reader: far below the 1024 files that many systems give a process. */
export const OPEN_PACKS = 64;

/** Bytes handed on at a time: large enough that hashing and writing dominate, small enough for a worker's cache. */
const BLOCK_BYTES = 2 ** 20;

/** Bytes that a record or an index promises and no pack has: the pack is gone or too short. Names the run. */
export class NotInPack extends PullError {
  readonly pack: PackId;
  readonly offset: number;
  readonly lengthBytes: number;

  constructor(path: string, pack: PackId, offset: number, lengthBytes: number) {
    super('store-broken', `${path} does not have the bytes [${offset}, ${offset + lengthBytes})`, {
      hint: 'Run zpull store verify, then pull the image again: only what is missing is fetched.',
    });
    this.pack = pack;
    this.offset = offset;
    this.lengthBytes = lengthBytes;
  }
}

/** Reads packs with synchronous calls, for worker threads. Invariant: at most OPEN_PACKS files are open. */
export class PackReader {
  readonly #paths: StorePaths;
  /** In order of last use, the longest unused first. */
  readonly #open = new Map<PackId, number>();
  #lastPack: PackId | undefined;
  #lastFd = -1;
  #block = Buffer.alloc(0);

  constructor(paths: StorePaths) {
    this.#paths = paths;
  }

  /** How many packs are open now. */
  get openPacks(): number {
    return this.#open.size;
  }

  /**
   * Reads `lengthBytes` bytes of a pack at `offset` into `target` at `at`.
   * @throws NotInPack if the pack does not have all of them, else PullError as `storageError`
   */
  readInto(target: Uint8Array, at: number, pack: PackId, offset: number, lengthBytes: number): void {
    const fd = pack === this.#lastPack ? this.#lastFd : this.#fdOf(pack, offset, lengthBytes);
    let done = 0;
    try {
      while (done < lengthBytes) {
        const read = readSync(fd, target, at + done, Math.min(CALL_BYTES, lengthBytes - done), offset + done);
        if (read === 0) break;
        done += read;
      }
    } catch (error) {
      throw storageError(error, `read ${lengthBytes} bytes of ${packPath(this.#paths, pack)}`);
    }
    if (done < lengthBytes) throw new NotInPack(packPath(this.#paths, pack), pack, offset, lengthBytes);
  }

  /**
   * The bytes of all extents, one after the other, in blocks of `blockBytes` (the last one is shorter). All blocks of
   * a reader are the same memory: one is good until the next is asked for, and one list is read at a time.
   * @throws NotInPack or PullError as `readInto`
   */
  *blocks(extents: ExtentList, blockBytes = BLOCK_BYTES): Generator<Buffer, void, undefined> {
    const block = this.#blockOf(Math.min(blockBytes, Math.max(1, extents.lengthBytes)));
    let filled = 0;
    for (let row = 0; row < extents.count; row++) {
      const pack = extents.packAt(row);
      let offset = extents.offsetAt(row);
      let left = extents.lengthAt(row);
      while (left > 0) {
        const part = Math.min(left, block.length - filled);
        this.readInto(block, filled, pack, offset, part);
        offset += part;
        left -= part;
        filled += part;
        if (filled === block.length) {
          yield block;
          filled = 0;
        }
      }
    }
    if (filled > 0) yield block.subarray(0, filled);
  }

  /** The reader's own memory, as large as the largest block asked for: a new MiB for every list kept 30 of them alive. */
  #blockOf(bytes: number): Buffer {
    if (this.#block.length < bytes) this.#block = Buffer.allocUnsafeSlow(bytes);
    return this.#block.subarray(0, bytes);
  }

  /** Closes all packs. */
  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
    this.#lastPack = undefined;
  }

  #fdOf(pack: PackId, offset: number, lengthBytes: number): number {
    const known = this.#open.get(pack);
    const fd = known ?? this.#openPack(pack, offset, lengthBytes);
    this.#open.delete(pack);
    this.#open.set(pack, fd);
    this.#lastPack = pack;
    this.#lastFd = fd;
    return fd;
  }

  #openPack(pack: PackId, offset: number, lengthBytes: number): number {
    if (this.#open.size >= OPEN_PACKS) {
      const [oldest, fd] = this.#open.entries().next().value!;
      this.#open.delete(oldest);
      closeSync(fd);
    }
    const path = packPath(this.#paths, pack);
    try {
      return openSync(path, 'r');
    } catch (error) {
      if (systemCode(error) === 'ENOENT') throw new NotInPack(path, pack, offset, lengthBytes);
      throw storageError(error, `open ${path}`);
    }
  }
}
