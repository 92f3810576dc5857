import { createHash } from 'node:crypto';
import { closeSync, readSync } from 'node:fs';
import { openFile, UnfitFile } from '../files/open-file.js';
import { CALL_BYTES, storageError, systemCode } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { ExtentList } from './extents.js';
import { type PackId, packPath, type StorePaths } from './paths.js';

/**
 * Packs open at a time, all readers together: far below the 1024 files that many systems give a process. Beyond it each reader
 * has one, the one it reads from.
 */
export const MAX_OPEN_PACKS = 64;

/** How many are open, in this thread or in all that share it. */
let openPacks: Uint32Array = new Uint32Array(1);

/** Counts this thread's open packs with those of others, in shared memory. To be called before a reader opens any. */
export function shareOpenPacks(counter: Uint32Array): void {
  openPacks = counter;
}

/** Bytes handed on at a time: large enough that hashing and writing dominate, small enough for a worker's cache. */
const BLOCK_BYTES = 2 ** 20;

/** Bytes that a record or an index promises and no pack has: the pack is gone or too short. Names the run. */
export class MissingBytes extends PullError {
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

/** Reads packs with synchronous calls, for worker threads. Invariant: whoever opens a pack beyond MAX_OPEN_PACKS has no other. */
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
   * @throws MissingBytes if the pack does not have all of them, else PullError as `storageError`
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
    if (done < lengthBytes) throw new MissingBytes(packPath(this.#paths, pack), pack, offset, lengthBytes);
  }

  /**
   * The bytes of all extents, one after the other, in blocks of `blockBytes` (the last one is shorter). All blocks of
   * a reader are the same memory: one is good until the next is asked for, and one list is read at a time.
   * @throws MissingBytes or PullError as `readInto`
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
    for (const pack of [...this.#open.keys()]) this.#close(pack);
  }

  #close(pack: PackId): void {
    const fd = this.#open.get(pack)!;
    this.#open.delete(pack);
    if (pack === this.#lastPack) this.#lastPack = undefined;
    Atomics.sub(openPacks, 0, 1);
    closeSync(fd);
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
    const path = packPath(this.#paths, pack);
    Atomics.add(openPacks, 0, 1);
    while (this.#open.size > 0 && Atomics.load(openPacks, 0) > MAX_OPEN_PACKS)
      this.#close(this.#open.keys().next().value!);
    try {
      return openFile(path);
    } catch (error) {
      Atomics.sub(openPacks, 0, 1);
      if (systemCode(error) === 'ENOENT' || error instanceof UnfitFile)
        throw new MissingBytes(path, pack, offset, lengthBytes);
      throw storageError(error, `open ${path}`);
    }
  }
}

/** The sha256 of these bytes, or undefined if the packs do not have them all. @throws PullError as PackReader */
export function digestOfExtents(reader: PackReader, extents: ExtentList): Buffer | undefined {
  const hash = createHash('sha256');
  try {
    for (const block of reader.blocks(extents)) hash.update(block);
  } catch (error) {
    if (error instanceof MissingBytes) return undefined;
    throw error;
  }
  return hash.digest();
}

/** Whether the packs have these bytes, and they hash to this sha256 digest. @throws PullError as PackReader, but for bytes that are gone */
export function hasDigest(reader: PackReader, extents: ExtentList, digest: Uint8Array): boolean {
  return digestOfExtents(reader, extents)?.equals(digest) === true;
}
