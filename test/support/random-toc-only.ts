import type { ResumedPiece } from '../../src/plan/layer-parts.js';
import { type ContentRow, tableOf, wantOf } from './layer-tables.js';
import type { Random } from './random.js';
import { append, contentOf, type Frame } from './random-image.js';

/** A small layer without tar-split, with all that a plan cannot see: its frames and its tar. */
export interface RandomTocOnly {
  readonly layout: 'separate-frames' | 'shared-frames';
  readonly frames: readonly Frame[];
  /** The true tar; the table has only allotments. */
  readonly tar: readonly number[];
  readonly contents: readonly ContentRow[];
  readonly want: ReturnType<typeof wantOf>;
  /** Blob offsets at which a range may begin or end. */
  readonly edges: readonly number[];
  /** The pieces of want.resumed that are true. */
  readonly trueResumed: readonly ResumedPiece[];
}

/** How much of a layer is on disk already, and how many names there are for its contents. */
export interface Shares {
  readonly held: number;
  readonly resumed: number;
  readonly names: number;
}

/** A content being built, with offsets in the true tar. */
interface DraftContent {
  readonly name: number;
  readonly start: number;
  readonly sizeBytes: number;
  /** By allotment. */
  readonly tarStart: number;
  /** Where chunks begin, the first included. */
  readonly chunks: readonly number[];
  readonly hasRows: boolean;
}

interface Draft {
  readonly layout: 'separate-frames' | 'shared-frames';
  readonly tar: number[];
  readonly contents: DraftContent[];
  /** Tar offsets of frames that the TOC states, and of others. */
  readonly stated: Set<number>;
  readonly cuts: Set<number>;
  tarAt: number;
}

export function randomTocOnly(random: Random, packs: number[][], shares: Shares): RandomTocOnly {
  const layout = random.chance(0.5) ? 'separate-frames' : 'shared-frames';
  const draft: Draft = { layout, tar: [], contents: [], stated: new Set(), cuts: new Set([0]), tarAt: 0 };
  const count = random.chance(0.1) ? 0 : random.int(1, 10);
  addGap(draft, random);
  for (let row = 0; row < count; row++) {
    addContent(draft, random, random.int(1, shares.names));
    addGap(draft, random);
  }
  const { frames, blobAt, dataEnd } = cutFrames(draft, random);
  const contents = rowsOf(draft, blobAt, dataEnd);
  const want = wantOf(tableOf(contents, dataEnd, draft.tarAt, { layout }));
  hold(draft, want, random, packs, shares.held);
  const trueResumed = randomPieces(draft.tar, frames, random, packs, shares.resumed);
  const resumed = withFalsePieces(trueResumed, dataEnd, random);
  return {
    layout,
    frames,
    tar: draft.tar,
    contents,
    want: { ...want, resumed },
    edges: edgesOf(draft, contents, blobAt, dataEnd),
    trueResumed,
  };
}

/** Headers and padding; where they are frames of their own there may be none of them. */
function addGap(draft: Draft, random: Random): void {
  const isApart = draft.layout === 'separate-frames';
  const bytes = isApart && random.chance(0.1) ? 0 : random.int(1, 30);
  const start = draft.tar.length;
  draft.tar.push(...Array.from({ length: bytes }, () => random.int(0, 255)));
  draft.tarAt += bytes + random.int(isApart ? 0 : 1, 20);
  if (isApart && bytes > 0) draft.cuts.add(start);
  if (bytes > 1 && random.chance(0.3)) draft.cuts.add(start + random.int(1, bytes - 1));
}

function addContent(draft: Draft, random: Random, name: number): void {
  const { tar, stated, layout, contents } = draft;
  const bytes = contentOf(name);
  const start = tar.length;
  const owns = layout === 'separate-frames' || contents.length === 0 || random.chance(0.6);
  if (owns) stated.add(start);
  const chunks = [start];
  for (let done = 0; random.chance(0.7); ) {
    if (done + 1 >= bytes.length) break;
    done = random.int(done + 1, bytes.length - 1);
    if (random.chance(0.3)) draft.cuts.add(start + done);
    else {
      chunks.push(start + done);
      if (layout === 'separate-frames' || random.chance(0.7)) stated.add(start + done);
    }
  }
  const hasRows = chunks.length > 1 && random.chance(0.6);
  contents.push({ name, start, sizeBytes: bytes.length, tarStart: draft.tarAt, chunks, hasRows });
  tar.push(...bytes);
  draft.tarAt += bytes.length;
}

/** The blob: frames from cut to cut, at times one between them that decodes to nothing. */
function cutFrames({ tar, cuts, stated }: Draft, random: Random) {
  const starts = [...new Set([...cuts, ...stated])].filter((at) => at < tar.length).sort((a, b) => a - b);
  const frames: Frame[] = [];
  const blobAt = new Map<number, number>();
  let blobStart = 0;
  for (const [row, tarStart] of starts.entries()) {
    if (row > 0 && random.chance(0.08)) {
      const blobEnd = blobStart + random.int(1, 5);
      frames.push({ blobStart, blobEnd, tarStart, tarEnd: tarStart });
      blobStart = blobEnd;
    }
    const tarEnd = starts[row + 1] ?? tar.length;
    const blobEnd = blobStart + random.int(1, random.chance(0.1) ? 200 : tarEnd - tarStart + 3);
    frames.push({ blobStart, blobEnd, tarStart, tarEnd });
    blobAt.set(tarStart, blobStart);
    blobStart = blobEnd;
  }
  blobAt.set(tar.length, blobStart);
  return { frames, blobAt, dataEnd: blobStart };
}

function rowsOf(draft: Draft, blobAt: ReadonlyMap<number, number>, dataEnd: number): ContentRow[] {
  const { contents, stated, layout } = draft;
  const blob = (tarAt: number) => blobAt.get(tarAt)!;
  const statedStarts = [...stated].sort((a, b) => a - b);
  /** Returns the frame with this tar offset, by the TOC. */
  const frameOf = (tarAt: number) => blob(statedStarts.findLast((start) => start <= tarAt)!);
  const owners = contents.filter(({ start }) => stated.has(start));
  return contents.map(({ name, start, sizeBytes, tarStart, chunks, hasRows }) => {
    const owner = owners.findLast((other) => other.start <= start)!;
    const next = owners.find((other) => other.start > start);
    const withinEnd = next === undefined ? dataEnd : blob(next.start);
    const range = [
      blob(owner.start),
      layout === 'separate-frames' ? blob(start + sizeBytes) : withinEnd,
    ] as const;
    const row = { name, blob: range, tarStart, sizeBytes };
    if (!hasRows) return row;
    const chunkRows = chunks.map((at) => ({ blobStart: frameOf(at), tarStart: tarStart + at - start }));
    return { ...row, chunks: chunkRows };
  });
}

function edgesOf(
  { contents, stated, layout }: Draft,
  rows: readonly ContentRow[],
  blobAt: ReadonlyMap<number, number>,
  dataEnd: number,
): number[] {
  const chunks = contents.flatMap(({ hasRows, chunks }) => (hasRows ? chunks.slice(1) : []));
  const at = [
    0,
    dataEnd,
    ...rows.map(({ blob }) => blob[0]),
    ...(layout === 'separate-frames' ? rows.map(({ blob }) => blob[1]) : []),
    ...chunks.filter((start) => stated.has(start)).map((start) => blobAt.get(start)!),
  ];
  return [...new Set(at)].sort((a, b) => a - b);
}

function hold(
  { tar, contents }: Draft,
  want: ReturnType<typeof wantOf>,
  random: Random,
  packs: number[][],
  share: number,
): void {
  let chunk = 0;
  for (const [row, { start, sizeBytes, chunks, hasRows }] of contents.entries()) {
    if (random.chance(share)) {
      want.cachedPack[row] = random.int(0, packs.length - 1);
      const bytes = tar.slice(start, start + sizeBytes);
      want.cachedOffset[row] = append(packs[want.cachedPack[row]!]!, bytes, random);
    }
    if (!hasRows) continue;
    for (const [i, from] of chunks.entries()) {
      if (random.chance(share)) {
        want.chunkCachedPack[chunk] = random.int(0, packs.length - 1);
        const bytes = tar.slice(from, chunks[i + 1] ?? start + sizeBytes);
        want.chunkCachedOffset[chunk] = append(packs[want.chunkCachedPack[chunk]!]!, bytes, random);
      }
      chunk++;
    }
  }
}

/** Returns runs of frames that an earlier pull left. Their tar offsets may count from elsewhere. */
function randomPieces(
  tar: readonly number[],
  frames: readonly Frame[],
  random: Random,
  packs: number[][],
  share: number,
): ResumedPiece[] {
  const pieces: ResumedPiece[] = [];
  for (let first = 0; first < frames.length; ) {
    let end = first + 1;
    while (end < frames.length && random.chance(0.6)) end++;
    if (random.chance(share)) {
      const { blobStart, tarStart } = frames[first]!;
      const { blobEnd, tarEnd } = frames[end - 1]!;
      const pack = random.int(0, packs.length - 1);
      const packOffset = append(packs[pack]!, tar.slice(tarStart, tarEnd), random);
      const lengthBytes = tarEnd - tarStart;
      pieces.push({ blobStart, blobEnd, tarStart: random.int(0, 9999), lengthBytes, pack, packOffset });
    }
    first = end;
  }
  return pieces;
}

/** Returns the pieces with some impossible ones among them. */
function withFalsePieces(pieces: readonly ResumedPiece[], dataEnd: number, random: Random): ResumedPiece[] {
  const all: ResumedPiece[] = [];
  const claim = (blobStart: number, blobEnd: number, lengthBytes: number) => {
    all.push({ blobStart, blobEnd, tarStart: 0, lengthBytes, pack: 0, packOffset: 0 });
  };
  if (random.chance(0.1)) claim(0, 0.5, 1);
  if (random.chance(0.1)) claim(0, 0, 0);
  for (const piece of pieces) {
    all.push(piece);
    if (random.chance(0.1)) all.push(piece);
    if (random.chance(0.1)) claim(piece.blobEnd - 1, piece.blobEnd + 1, 2);
  }
  const end = pieces.at(-1)?.blobEnd ?? 0;
  if (random.chance(0.1)) claim(end, dataEnd + 10, 5);
  if (random.chance(0.1)) claim(end, Number.NaN, 5);
  return all;
}
