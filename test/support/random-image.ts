import assert from 'node:assert/strict';
import type { ResumedPiece } from '../../src/plan/layer-parts.js';
import { type ContentRow, tableOf, wantOf } from './layer-tables.js';
import type { Random } from './random.js';

/** One frame of a blob and the tar bytes it decodes to. */
export interface Frame {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
}

/** A small layer with all that a plan cannot see: its frames and its tar. */
export interface RandomLayer {
  readonly frames: readonly Frame[];
  readonly tar: readonly number[];
  readonly contents: readonly ContentRow[];
  readonly want: ReturnType<typeof wantOf>;
  /** The pieces of want.resumed that are true; the others contradict the table. */
  readonly trueResumed: readonly ResumedPiece[];
}

export interface RandomImage {
  readonly layers: readonly RandomLayer[];
  /** The bytes of each pack. */
  readonly packs: readonly number[][];
}

/** An image of a few layers with empty ones, duplicates, chunks, empty frames, holes, held contents and resumed pieces. */
export function randomImage(random: Random): RandomImage {
  const packs: number[][] = [[], [], []];
  const shares = {
    held: random.chance(0.3) ? 0 : random.int(0, 100) / 100,
    resumed: random.chance(0.4) ? 0 : random.int(0, 60) / 100,
    names: random.int(1, 40),
  };
  const layers = Array.from({ length: random.int(0, 4) }, () => randomLayer(random, packs, shares));
  return { layers, packs };
}

interface Draft {
  readonly frames: Frame[];
  readonly tar: number[];
  readonly contents: ContentRow[];
  blobBytes: number;
}

function randomLayer(
  random: Random,
  packs: number[][],
  shares: { held: number; resumed: number; names: number },
): RandomLayer {
  const draft: Draft = { frames: [], tar: [], contents: [], blobBytes: 0 };
  const count = random.chance(0.15) ? 0 : random.int(1, 14);
  for (let i = 0; i < count; i++) {
    addGap(draft, random);
    addContent(draft, random, random.int(1, shares.names));
  }
  addGap(draft, random);
  const table = tableOf(draft.contents, draft.blobBytes, draft.tar.length);
  const want = wantOf(table);
  for (let row = 0; row < count; row++) {
    const tarStart = table.tarStart[row]!;
    if (random.chance(shares.held)) {
      want.cachedPack[row] = random.int(0, packs.length - 1);
      const bytes = draft.tar.slice(tarStart, tarStart + table.sizeBytes[row]!);
      want.cachedOffset[row] = append(packs[want.cachedPack[row]!]!, bytes, random);
    }
    for (let chunk = table.chunkFirst[row]!; chunk < table.chunkFirst[row + 1]!; chunk++) {
      if (!random.chance(shares.held)) continue;
      const last = chunk + 1 === table.chunkFirst[row + 1]!;
      const end = last ? tarStart + table.sizeBytes[row]! : table.chunkTarStart[chunk + 1]!;
      want.chunkCachedPack[chunk] = random.int(0, packs.length - 1);
      const bytes = draft.tar.slice(table.chunkTarStart[chunk]!, end);
      want.chunkCachedOffset[chunk] = append(packs[want.chunkCachedPack[chunk]!]!, bytes, random);
    }
  }
  const trueResumed = randomPieces(draft, random, packs, shares.resumed);
  const resumed = withFalsePieces(draft, random, trueResumed);
  return { ...draft, want: { ...want, resumed }, trueResumed };
}

function addFrame(draft: Draft, blobBytes: number, tar: readonly number[]): void {
  const tarStart = draft.tar.length;
  draft.tar.push(...tar);
  const blobEnd = draft.blobBytes + blobBytes;
  draft.frames.push({ blobStart: draft.blobBytes, blobEnd, tarStart, tarEnd: draft.tar.length });
  draft.blobBytes = blobEnd;
}

function addGap(draft: Draft, random: Random): void {
  const noise = (length: number) => Array.from({ length }, () => random.int(0, 255));
  if (random.chance(0.1)) return;
  if (random.chance(0.05)) {
    // A hole: tar bytes without blob bytes.
    draft.tar.push(...noise(random.int(1, 9)));
    return;
  }
  const frames = random.chance(0.8) ? 1 : random.int(2, 4);
  for (let i = 0; i < frames; i++) {
    const tarBytes = random.chance(0.1) ? 0 : random.int(1, 30);
    addFrame(draft, random.chance(0.15) ? random.int(30, 200) : random.int(1, 20), noise(tarBytes));
  }
}

function addContent(draft: Draft, random: Random, name: number): void {
  const content = contentOf(name);
  const sizeBytes = content.length;
  const blobStart = draft.blobBytes;
  const tarStart = draft.tar.length;
  const chunks = [{ blobStart, tarStart }];
  let done = 0;
  while (done < sizeBytes) {
    const bytes = Math.min(sizeBytes - done, random.int(1, sizeBytes));
    if (done > 0 && random.chance(0.7))
      chunks.push({ blobStart: draft.blobBytes, tarStart: tarStart + done });
    addFrame(draft, random.int(1, bytes + 3), content.slice(done, done + bytes));
    if (random.chance(0.1)) addFrame(draft, random.int(1, 5), []);
    done += bytes;
  }
  const row = { name, blob: [blobStart, draft.blobBytes] as const, tarStart, sizeBytes };
  draft.contents.push(random.chance(0.5) && chunks.length > 1 ? { ...row, chunks } : row);
}

/** The bytes of the content of this name, at least one. */
export function contentOf(name: number): number[] {
  const sizeBytes = name % 5 === 0 ? 150 + name * 7 : name * 3;
  return Array.from({ length: sizeBytes }, (_, i) => (name * 101 + i * 7) & 255);
}

/** Returns the offset of the bytes in the pack; sometimes other bytes precede them. */
export function append(pack: number[], bytes: readonly number[], random: Random): number {
  if (random.chance(0.5)) pack.push(...Array.from({ length: random.int(1, 5) }, () => 0));
  pack.push(...bytes);
  return pack.length - bytes.length;
}

function randomPieces(draft: Draft, random: Random, packs: number[][], share: number): ResumedPiece[] {
  const pieces: ResumedPiece[] = [];
  for (let first = 0; first < draft.frames.length; ) {
    let end = first + 1;
    // A piece is an unbroken part of the tar: it does not cross a hole.
    const joined = () => draft.frames[end]!.tarStart === draft.frames[end - 1]!.tarEnd;
    while (end < draft.frames.length && joined() && random.chance(0.5)) end++;
    if (random.chance(share)) {
      const { blobStart, tarStart } = draft.frames[first]!;
      const { blobEnd, tarEnd } = draft.frames[end - 1]!;
      const pack = random.int(0, packs.length - 1);
      const packOffset = append(packs[pack]!, draft.tar.slice(tarStart, tarEnd), random);
      pieces.push({ blobStart, blobEnd, tarStart, lengthBytes: tarEnd - tarStart, pack, packOffset });
    }
    first = end;
  }
  return pieces;
}

/** Returns the pieces with some impossible ones among them. */
function withFalsePieces(draft: Draft, random: Random, pieces: readonly ResumedPiece[]): ResumedPiece[] {
  const all: ResumedPiece[] = [];
  const claim = (blobStart: number, blobEnd: number, tarStart: number, lengthBytes: number) => {
    all.push({ blobStart, blobEnd, tarStart, lengthBytes, pack: 0, packOffset: 0 });
  };
  for (const content of draft.contents) {
    const [blobStart, blobEnd] = content.blob;
    const before = pieces.filter((piece) => !all.includes(piece) && piece.blobStart < blobStart);
    all.push(...before);
    if (random.chance(0.2)) claim(blobStart, blobEnd, content.tarStart + 1, content.sizeBytes);
    if (random.chance(0.2)) claim(blobStart, blobEnd, content.tarStart, content.sizeBytes - 1);
    if (random.chance(0.1)) claim(blobStart, blobStart + 0.5, content.tarStart, 1);
    if (random.chance(0.1)) claim(blobStart, blobStart, content.tarStart, 0);
  }
  all.push(...pieces.filter((piece) => !all.includes(piece)));
  if (random.chance(0.2)) claim(draft.blobBytes, draft.blobBytes + 10, draft.tar.length, 5);
  if (random.chance(0.1)) claim(Number.NaN, draft.blobBytes, 0, draft.tar.length);
  const last = pieces.at(-1);
  if (last !== undefined && random.chance(0.3)) all.push(last);
  return all;
}

/** Fails at the first byte that differs. `deepEqual` takes a hundred times as long. */
export function assertSameBytes(actual: readonly number[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  if (at >= 0) assert.fail(`byte ${at} is ${actual[at]}, not ${expected[at]}`);
}
