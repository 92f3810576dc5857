import { createHash } from 'node:crypto';
import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Digest, digestOfBytes } from '../../../src/format/digest.js';
import { PackWriter, type PieceToWrite } from '../../../src/store/pack-writer.js';
import { openStore, type PackId, type StorePaths } from '../../../src/store/paths.js';

/** A fresh store, gone after the test. */
export function freshStore(t: TestContext): StorePaths {
  const root = mkdtempSync(join(tmpdir(), 'zpull-store-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  return openStore(root);
}

/** Which files and directories are synced by calls that wait for it while `work` runs, in their order. */
export function syncedBy(t: TestContext, work: () => void): string[] {
  const paths = new Map<number, string>();
  const synced: string[] = [];
  const { openSync, fsyncSync } = fs;
  const mocks = [
    t.mock.method(fs, 'openSync', (path: string, flags: string, mode?: number) => {
      const fd = openSync(path, flags, mode);
      paths.set(
        fd,
        path.replace(/^\/proc\/self\/fd\/\d+(?=\/)/, (holder) => fs.readlinkSync(holder)),
      );
      return fd;
    }),
    t.mock.method(fs, 'fsyncSync', (fd: number) => {
      fsyncSync(fd);
      synced.push(paths.get(fd)!);
    }),
  ];
  syncBuiltinESMExports();
  try {
    work();
  } finally {
    for (const { mock } of mocks) mock.restore();
    syncBuiltinESMExports();
  }
  return synced;
}

export function sha256(bytes: Uint8Array | string): Buffer {
  return createHash('sha256').update(bytes).digest();
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return digestOfBytes(sha256(bytes));
}

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomBytes(random: () => number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, () => random() * 256));
}

export interface Run {
  readonly digest: Uint8Array;
  readonly packOffset: number;
  readonly lengthBytes: number;
}

/** A piece of the blob named `blob` with the given runs as its contents. */
export function pieceOf(
  bytes: Uint8Array,
  packOffset: number,
  runs: Run[] = [],
  more: Partial<PieceToWrite> = {},
): PieceToWrite {
  return {
    bytes,
    packOffset,
    raw: false,
    blobDigest: sha256('blob'),
    blobStart: 0,
    blobLength: 100,
    tarStart: 0,
    contents: {
      count: runs.length,
      digests: Buffer.concat(runs.map(({ digest }) => digest)),
      packOffset: Float64Array.from(runs, ({ packOffset }) => packOffset),
      lengthBytes: Float64Array.from(runs, ({ lengthBytes }) => lengthBytes),
    },
    ...more,
  };
}

/**
 * A pack of one piece that holds each of `contents`, indexed by digest; of those in `stated` a TOC says that they are others.
 * Returns its name and their offsets.
 */
export function writePack(
  paths: StorePaths,
  contents: Uint8Array[],
  more: Partial<PieceToWrite> = {},
  stated?: readonly Uint8Array[],
): { id: PackId; offsets: number[] } {
  const writer = new PackWriter(paths);
  const bytes = Buffer.concat(contents);
  const region = writer.reserve(bytes.length);
  let end = region.start;
  const runs = contents.map((content, i) => {
    end += content.length;
    return {
      digest: sha256(stated?.[i] ?? content),
      packOffset: end - content.length,
      lengthBytes: content.length,
    };
  });
  const piece = pieceOf(bytes, region.start, runs, more);
  const isStated = stated === undefined ? {} : { stated: true };
  writer.writePiece(region, { ...piece, contents: { ...piece.contents, ...isStated } });
  writer.close();
  return { id: region.pack, offsets: runs.map(({ packOffset }) => packOffset) };
}

/** Lets the monotonic clock run ahead by so many milliseconds, in this test; may be called again. */
export function skipTime(t: TestContext): (ms: number) => void {
  const real = performance.now.bind(performance);
  let aheadMs = 0;
  t.mock.method(performance, 'now', () => real() + aheadMs);
  return (ms) => {
    aheadMs += ms;
  };
}
