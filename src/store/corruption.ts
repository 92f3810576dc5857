import { constants } from 'node:fs';
import { withGuarded } from '../files/guarded-directory.js';
import { openFile, statFile } from '../files/open-file.js';
import { closeWritten, ifExists, isUnwritable, writeFully } from '../files/storage-error.js';
import { countBefore } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { ExtentList, neededRuns, overlapsRun, type Runs } from './extents.js';
import { markBad, type PackRun } from './pack-files.js';
import {
  digestOf,
  encodeContent,
  encodePiece,
  type IndexedPack,
  IndexScan,
  lengthOf,
  listIndexedPacks,
  NO_BLOB,
  type PieceFields,
  packOffsetOf,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
} from './pack-index.js';
import { digestOfExtents, type PackReader } from './pack-reader.js';
import { indexPath, type PackId, packPath, type StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';

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
          const digest = Buffer.from(digestOf(block, at));
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
    markBadIfWritable(
      paths,
      pack.id,
      bad.filter(({ offset, lengthBytes }) => !overlapsRun(pack.bad, offset, offset + lengthBytes)),
    );
  }
  return [...parts, ...lostParts(paths, rows)].sort((a, b) => a.start - b.start);
}

function markBadIfWritable(paths: StorePaths, id: PackId, runs: readonly PackRun[]): void {
  if (runs.length === 0) return;
  try {
    markBad(paths, id, runs);
  } catch (error) {
    if (!isUnwritable(error)) throw error;
  }
}

function lostParts(paths: StorePaths, rows: ReadonlyMap<PackId, readonly Row[]>): TarPart[] {
  return [...rows]
    .filter(([id]) => statFile(packPath(paths, id)) === undefined)
    .flatMap(([, rowsOfPack]) => rowsOfPack)
    .map(({ tarStart, lengthBytes }) => ({ start: tarStart, end: tarStart + lengthBytes }));
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
  let i = countBefore(contents, (content) => content.offset < row.offset);
  for (; i < contents.length && contents[i]!.offset < end; i++) {
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
  const actual = digestOfExtents(reader, ExtentList.of(pack, offset, lengthBytes));
  if (actual?.equals(digest) === true) return false;
  if (actual === undefined || !stated || !proof.covers(offset, lengthBytes)) return true;
  correction.content(position, actual, content);
  return false;
}

/**
 * Marks the parts of these extents as bad that lie in pieces with a wrong crc32. That bytes do not
 * match what a layer needs is no reason to mark them: the layer's metadata may be wrong, and other
 * layers may use the bytes. The other bytes of such a piece stay usable. In intact pieces, corrects
 * wrong records: stated digests, and the blob of pieces of `blobDigest`.
 * @throws PullError as `storageError`
 */
export function markCorrupt(
  paths: StorePaths,
  reader: PackReader,
  suspects: ExtentList,
  blobDigest?: Uint8Array,
): void {
  const byPack = neededRuns([suspects]);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  for (const pack of listIndexedPacks(paths)) {
    const runs = byPack.get(pack.id);
    if (runs === undefined) continue;
    const proof = new PieceProof(reader, pack.id);
    indexes.read(
      pack,
      (type) => type === RECORD_TYPES.piece,
      (_, at) => {
        const piece = pieceOf(block, at);
        proof.add(piece.packOffset, piece.lengthBytes, piece.crc32);
      },
    );
    const corrupt = [];
    for (let i = 0; i < runs.length; i += 2)
      corrupt.push(...proof.corruptParts(runs[i]!, runs[i + 1]! - runs[i]!));
    if (corrupt.length > 0) markBad(paths, pack.id, corrupt);
    correctRecords(paths, reader, indexes, { pack, runs, proof }, blobDigest);
  }
}

/** Corrects wrong records of intact bytes that overlap these runs of a pack. */
function correctRecords(
  paths: StorePaths,
  reader: PackReader,
  indexes: IndexScan,
  { pack, runs, proof }: { pack: IndexedPack; runs: Runs; proof: PieceProof },
  blobDigest: Uint8Array | undefined,
): void {
  const { block } = indexes;
  const correction = new IndexCorrection(paths, pack);
  const isOfBlob = (at: number) => blobDigest !== undefined && digestOf(block, at).equals(blobDigest);
  indexes.read(
    pack,
    (type, at) => {
      const offset = packOffsetOf(block, at);
      const isSuspect = type === RECORD_TYPES.stated || (type === RECORD_TYPES.piece && isOfBlob(at));
      return isSuspect && overlapsRun(runs, offset, offset + lengthOf(block, at));
    },
    (type, at) => {
      const position = indexes.blockStart + at;
      const offset = packOffsetOf(block, at);
      const lengthBytes = lengthOf(block, at);
      if (!proof.covers(offset, lengthBytes)) return;
      if (type === RECORD_TYPES.piece) {
        correction.detachPiece(position, pieceOf(block, at));
        return;
      }
      const digest = digestOfExtents(reader, ExtentList.of(pack.id, offset, lengthBytes));
      if (digest !== undefined && !digest.equals(digestOf(block, at)))
        correction.content(position, digest, { offset, lengthBytes });
    },
  );
  correction.close();
}

/**
 * Overwrites wrong records in the index of a pack whose bytes are intact. The bytes stay, since
 * layers may use them. A reader that meets a half-written record skips it for its crc32. If the
 * index cannot be written, the record stays and costs the next pull a failed DiffID.
 */
class IndexCorrection {
  readonly #paths: StorePaths;
  readonly #pack: IndexedPack;
  readonly #record = Buffer.alloc(RECORD_BYTES);
  #file: { readonly fd: number; readonly path: string } | undefined;
  #isOver = false;

  constructor(paths: StorePaths, pack: IndexedPack) {
    this.#paths = paths;
    this.#pack = pack;
  }

  /** Replaces the record at `position` by one with the computed digest of its run. */
  content(position: number, digest: Uint8Array, { offset, lengthBytes }: PackRun): void {
    encodeContent(this.#record, 0, digest, 0, offset, lengthBytes);
    this.#write(position);
  }

  /**
   * Removes the blob's digest from a piece that does not match the blob. Its crc32 still detects
   * corruption.
   */
  detachPiece(position: number, piece: PieceFields): void {
    encodePiece(this.#record, 0, { ...piece, blobDigest: NO_BLOB });
    this.#write(position);
  }

  close(): void {
    const file = this.#file;
    this.#isOver = true;
    this.#file = undefined;
    if (file !== undefined) this.#attempt(() => closeWritten(file.fd, file.path));
  }

  #write(position: number): void {
    if (this.#isOver) return;
    this.#attempt(() => {
      this.#file ??= openToWrite(this.#paths, this.#pack);
      if (this.#file === undefined) this.#isOver = true;
      else writeFully(this.#file.fd, this.#file.path, this.#record, position);
    });
  }

  /** Stops correcting after the first error. */
  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      this.#isOver = true;
    }
  }
}

/**
 * Opens the index for writing, also one that was sealed meanwhile. Returns undefined if it is gone.
 */
function openToWrite(
  paths: StorePaths,
  { id, sealed }: IndexedPack,
): { fd: number; path: string } | undefined {
  for (const path of new Set([indexPath(paths, id, sealed), indexPath(paths, id, true)])) {
    const open = () => withGuarded(path, (at) => openFile(path, constants.O_WRONLY, at));
    const fd = ifExists(`write ${path}`, open);
    if (fd !== undefined) return { fd, path };
  }
  return undefined;
}
