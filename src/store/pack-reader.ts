import { createHash } from 'node:crypto';
import { closeSync, readSync } from 'node:fs';
import { openFile } from '../files/open-file.js';
import { CALL_BYTES, storageError, systemCode, UnfitFile } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { ExtentList } from './extents.js';
import { type PackId, packPath, type StorePaths } from './paths.js';

/**
 * Packs open at a time in all readers together, far below the usual limit of 1024 files per
 * process. At the limit, a reader keeps only the pack that it reads from.
 */
export const MAX_OPEN_PACKS = 64;

/** The number of open packs, in this thread or in all threads that share the counter. */
let openPacks: Uint32Array = new Uint32Array(1);

/**
 * Makes this thread count its open packs in shared memory. To be called before a reader opens one.
 */
export function shareOpenPacks(counter: Uint32Array): void {
  openPacks = counter;
}

/**
 * The size of blocks: large enough that hashing and writing dominate, small enough for the CPU
 * cache.
 */
const BLOCK_BYTES = 2 ** 20;

/**
 * A run that a record or an index states but that does not exist: the pack is gone or too short.
 */
class MissingBytes extends PullError {
  constructor(path: string, offset: number, lengthBytes: number) {
    super('store-broken', `${path} does not have the bytes [${offset}, ${offset + lengthBytes})`, {
      hint: 'Run zpull store verify, then pull the image again. Only the missing parts are fetched.',
    });
  }
}

/** Returns `value` for a MissingBytes. @throws any other error */
export function ifMissing<T>(error: unknown, value: T): T {
  if (error instanceof MissingBytes) return value;
  throw error;
}

/**
 * Reads packs synchronously, in worker threads. Invariant: a reader that exceeds MAX_OPEN_PACKS has
 * one pack open.
 */
export class PackReader {
  readonly #paths: StorePaths;
  /** Ordered by last use, the least recently used first. */
  readonly #open = new Map<PackId, number>();
  #lastPack: PackId | undefined;
  #lastFd = -1;
  #block = Buffer.alloc(0);

  constructor(paths: StorePaths) {
    this.#paths = paths;
  }

  /** The number of packs that this reader has open. */
  get openPacks(): number {
    return this.#open.size;
  }

  /**
   * Reads the bytes [offset, offset + lengthBytes) of a pack into `target` at `at`.
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
    if (done < lengthBytes) throw new MissingBytes(packPath(this.#paths, pack), offset, lengthBytes);
  }

  /**
   * Yields the bytes of all extents in blocks of `blockBytes`; the last block is shorter. Every
   * block uses the same memory: it is valid until the next one, and a reader reads one list at a
   * time.
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

  /**
   * Reuses one buffer, as large as the largest block: with one buffer per list, 30 of 1 MiB stayed
   * alive.
   */
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
        throw new MissingBytes(path, offset, lengthBytes);
      throw storageError(error, `open ${path}`);
    }
  }
}

/**
 * Returns the sha256 of the bytes, or undefined if some are missing.
 * @throws PullError as `readInto`
 */
export function digestOfExtents(reader: PackReader, extents: ExtentList): Buffer | undefined {
  const hash = createHash('sha256');
  try {
    for (const block of reader.blocks(extents)) hash.update(block);
  } catch (error) {
    return ifMissing(error, undefined);
  }
  return hash.digest();
}

/**
 * Returns whether the bytes exist and have this sha256 digest.
 * @throws PullError as `readInto`, but not for missing bytes
 */
export function hasDigest(reader: PackReader, extents: ExtentList, digest: Uint8Array): boolean {
  return digestOfExtents(reader, extents)?.equals(digest) === true;
}
