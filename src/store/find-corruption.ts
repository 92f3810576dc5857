import { statFile } from '../files/open-file.js';
import { isUnwritable, wrapFsError } from '../files/storage-error.js';
import { countBefore } from '../format/arrays.js';
import { DIGEST_BYTES } from '../format/digest.js';
import { markBad, type PackRun } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { IndexScan, listIndexedPacks } from './index-files.js';
import { digestStart, lengthOf, packOffsetOf, pieceOf, RECORD_TYPES } from './index-format.js';
import { IndexCorrection } from './mark-corrupt.js';
import { digestOfExtents, type PackReader } from './pack-reader.js';
import { type PackId, packPath, type StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';
import { overlapsRun } from './runs.js';

/** A corrupt part of a layer's tar; half-open. */
export interface TarPart {
  readonly start: number;
  readonly end: number;
}

/** An extent of a layer. */
interface Row {
  readonly tarStart: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A run with its digest in the index of a pack. */
interface KnownContent extends PackRun {
  readonly digest: Buffer;
  readonly stated: boolean;
  /** Offset of its record in the index. */
  readonly position: number;
}

/**
 * Finds the corrupt bytes of a layer and marks them as bad in their packs. Contents are checked by
 * digest; one with a stated digest is corrupt only if its pieces fail their crc32 too, since the
 * digest itself may be wrong and other layers may use the bytes. Bytes between contents (tar
 * headers) are corrupt if their piece fails its crc32. Bytes without records (inline ones) cannot
 * be checked; a pull writes them again anyway.
 * @returns the corrupt contents, in tar order
 * @throws PullError as `storageError`
 */
export function findCorruption(paths: StorePaths, reader: PackReader, extents: ExtentList): TarPart[] {
  const rows = rowsByPack(extents);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  const parts: TarPart[] = [];
  for (const pack of listIndexedPacks(paths)) {
    const rowsOfPack = rows.get(pack.id);
    if (rowsOfPack === undefined) continue;
    const proof = new PieceProof(reader, pack.id);
    const contents: KnownContent[] = [];
    const known = new Set<number>();
    indexes.read(
      pack,
      (type) => type !== RECORD_TYPES.raw,
      (type, at) => {
        const offset = packOffsetOf(block, at);
        const lengthBytes = lengthOf(block, at);
        if (type === RECORD_TYPES.piece) proof.add(offset, lengthBytes, pieceOf(block, at).crc32);
        else if (!known.has(offset)) {
          known.add(offset);
          const start = digestStart(at);
          const digest = Buffer.from(block.subarray(start, start + DIGEST_BYTES));
          const stated = type === RECORD_TYPES.stated;
          contents.push({ offset, lengthBytes, digest, stated, position: indexes.blockStart + at });
        }
      },
    );
    contents.sort((a, b) => a.offset - b.offset);
    const bad: PackRun[] = [];
    const correction = new IndexCorrection(paths, pack);
    for (const row of rowsOfPack) {
      const found = corruptRuns(reader, pack.id, proof, contents, row, correction);
      bad.push(...found.contents, ...found.gaps);
      for (const { offset, lengthBytes } of found.contents) {
        const start = row.tarStart + (offset - row.offset);
        parts.push({ start, end: start + lengthBytes });
      }
    }
    correction.close();
    const fresh = bad.filter(
      ({ offset, lengthBytes }) => !overlapsRun(pack.bad, offset, offset + lengthBytes),
    );
    if (fresh.length > 0) markBadIfWritable(paths, pack.id, fresh);
  }
  return [...parts, ...lostParts(paths, rows)].sort((a, b) => a.start - b.start);
}

/** Marks runs as bad, unless the store is full or this user cannot write to it. */
function markBadIfWritable(paths: StorePaths, id: PackId, runs: readonly PackRun[]): void {
  try {
    markBad(paths, id, runs);
  } catch (error) {
    if (!isUnwritable(error)) throw error;
  }
}

/** Returns the extents whose pack is gone. */
function lostParts(paths: StorePaths, rows: ReadonlyMap<PackId, readonly Row[]>): TarPart[] {
  return [...rows]
    .filter(([id]) => !isPresent(packPath(paths, id)))
    .flatMap(([, rowsOfPack]) => rowsOfPack)
    .map(({ tarStart, lengthBytes }) => ({ start: tarStart, end: tarStart + lengthBytes }));
}

function isPresent(path: string): boolean {
  return wrapFsError(`stat ${path}`, () => statFile(path)) !== undefined;
}

function rowsByPack(extents: ExtentList): Map<PackId, Row[]> {
  const rows = new Map(extents.packs.map((id): [PackId, Row[]] => [id, []]));
  for (let i = 0; i < extents.count; i++) {
    rows.get(extents.packAt(i))!.push({
      tarStart: extents.startAt(i),
      offset: extents.offsetAt(i),
      lengthBytes: extents.lengthAt(i),
    });
  }
  return rows;
}

/** Returns the corrupt runs of one extent; `contents` are ordered by offset. */
function corruptRuns(
  reader: PackReader,
  pack: PackId,
  proof: PieceProof,
  contents: readonly KnownContent[],
  row: Row,
  correction: IndexCorrection,
): { contents: PackRun[]; gaps: PackRun[] } {
  const end = row.offset + row.lengthBytes;
  const found: { contents: PackRun[]; gaps: PackRun[] } = { contents: [], gaps: [] };
  let at = row.offset;
  for (
    let i = countBefore(contents, (content) => content.offset < row.offset);
    i < contents.length && contents[i]!.offset < end;
    i++
  ) {
    const content = contents[i]!;
    const contentEnd = content.offset + content.lengthBytes;
    // A chunk at the start of its content, or a content that the extent has in part.
    if (contentEnd > end || content.offset < at) continue;
    found.gaps.push(...proof.corruptParts(at, content.offset - at));
    if (isCorrupt(reader, pack, proof, content, correction)) found.contents.push(content);
    at = contentEnd;
  }
  found.gaps.push(...proof.corruptParts(at, end - at));
  return found;
}

function isCorrupt(
  reader: PackReader,
  pack: PackId,
  proof: PieceProof,
  content: KnownContent,
  correction: IndexCorrection,
): boolean {
  const { offset, lengthBytes, digest, stated, position } = content;
  const run = new ExtentList();
  run.push(pack, offset, lengthBytes);
  const actual = digestOfExtents(reader, run);
  if (actual?.equals(digest) === true) return false;
  if (actual === undefined || !stated || !proof.covers(offset, lengthBytes)) return true;
  correction.content(position, actual, content);
  return false;
}
