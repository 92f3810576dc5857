import { DIGEST_BYTES, type Digest, digestBytes } from '../format/digest.js';
import { DigestTable } from '../format/digest-table.js';
import { hasRun, type IndexedPack, IndexScan, listIndexedPacks } from './index-files.js';
import {
  digestStart,
  isContent,
  lengthOf,
  type PieceFields,
  packOffsetOf,
  pieceOf,
  RECORD_TYPES,
  type RecordType,
} from './index-format.js';
import { PackReader } from './pack-reader.js';
import type { PackId, StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';

/** Digests that are wanted: the contents of a layer, say, or its chunks. One row each. */
export interface WantedDigests {
  /** DIGEST_BYTES bytes a row. */
  readonly digests: Uint8Array;
  /** Only a run of this length will do. */
  readonly sizeBytes: Float64Array;
}

/** A blob that may have been fetched in part; each (digest, raw) at most once. */
interface WantedBlob {
  readonly digest: Digest;
  /** Whether pieces of its own bytes are wanted, or pieces of the tar that it holds. */
  readonly raw: boolean;
}

export interface LookUpRequest {
  readonly digests: readonly WantedDigests[];
  readonly blobs: readonly WantedBlob[];
}

/** Where wanted digests lie, row by row. */
interface FoundRuns {
  /** Row of the answer's packs, or -1: no pack holds it. */
  readonly pack: Int32Array;
  /** Offset in the pack. */
  readonly offset: Float64Array;
}

export interface LookUpAnswer {
  readonly packs: readonly PackId[];
  /** One for each of the request's `digests`. */
  readonly found: readonly FoundRuns[];
  readonly resumed: ResumedPieces;
}

/**
 * Which wanted digests and which pieces of wanted blobs the store's packs hold: a join of all index files against a table
 * of what is wanted, as the store is larger than an image and is asked once a pull. Runs in sealed packs are believed
 * and come first; of unsealed packs the bytes are read and their crc32 compared. A run whose digest was computed is preferred to
 * one whose digest is stated: the caller learns by the DiffID whether that is true. Synchronous, for a worker thread.
 * @throws PullError `store-denied` or `store-broken` when the disk does not answer
 */
export function lookUp(paths: StorePaths, request: LookUpRequest): LookUpAnswer {
  const reader = new PackReader(paths);
  try {
    const search = new Search(paths, reader, request);
    for (const pack of listIndexedPacks(paths)) search.scan(pack);
    return {
      packs: search.packs,
      found: search.split(request.digests),
      resumed: choosePieces(search.candidates),
    };
  } finally {
    reader.close();
  }
}

/** The state of one look-up. Invariant: a row that has an answer keeps it, unless its digest is stated and a computed one comes. */
class Search {
  readonly packs: PackId[] = [];
  readonly candidates: Candidate[] = [];
  readonly #reader: PackReader;
  readonly #scan: IndexScan;
  readonly #wanted: DigestTable;
  readonly #blobs: DigestTable;
  readonly #pack: Int32Array;
  readonly #offset: Float64Array;
  /** 1 for a row whose answer has its digest from the metadata of a layer. */
  readonly #stated: Uint8Array;

  constructor(paths: StorePaths, reader: PackReader, request: LookUpRequest) {
    this.#scan = new IndexScan(paths);
    this.#reader = reader;
    this.#wanted = tableOf(request.digests);
    this.#blobs = new DigestTable(
      Buffer.concat(request.blobs.map(({ digest }) => digestBytes(digest))),
      Float64Array.from(request.blobs, ({ raw }) => Number(raw)),
    );
    const rows = this.#wanted.firstRow.length;
    this.#pack = new Int32Array(rows).fill(-1);
    this.#offset = new Float64Array(rows);
    this.#stated = new Uint8Array(rows);
  }

  /** Takes from one pack what no pack before it had. */
  scan(pack: IndexedPack): void {
    const { block } = this.#scan;
    const proof = pack.sealed ? undefined : new PieceProof(this.#reader, pack.id);
    const packRow = lazily(() => this.packs.push(pack.id) - 1);
    const unproven: { row: number; offset: number; lengthBytes: number; type: RecordType }[] = [];
    let row = -1;
    const wants = (type: RecordType, at: number): boolean => {
      if (isContent(type)) {
        if (!this.#wanted.mayHave(block, digestStart(at))) return false;
        row = this.#wanted.find(block, digestStart(at), lengthOf(block, at));
        return row >= 0 && this.#isBetter(row, type);
      }
      row = this.#blobs.find(block, digestStart(at), Number(type === RECORD_TYPES.raw));
      return row >= 0 || proof !== undefined;
    };
    this.#scan.read(pack, wants, (type, at) => {
      const offset = packOffsetOf(block, at);
      const lengthBytes = lengthOf(block, at);
      const exists = hasRun(pack, offset, lengthBytes);
      if (isContent(type)) {
        if (exists && proof === undefined) this.#answer(row, packRow(), offset, type);
        else if (exists) unproven.push({ row, offset, lengthBytes, type });
        return;
      }
      const piece = pieceOf(block, at);
      // A piece with a bad run in it still tells whether the other runs are as they were written.
      proof?.add(offset, lengthBytes, piece.crc32);
      if (row < 0 || !exists) return;
      const isTrue = () => proof === undefined || proof.covers(offset, lengthBytes);
      const isBlobPiece = type === RECORD_TYPES.raw;
      this.candidates.push({ blob: row, sealed: pack.sealed, isBlobPiece, piece, pack: packRow, isTrue });
    });
    for (const { row, offset, lengthBytes, type } of unproven) {
      if (this.#isBetter(row, type) && proof?.covers(offset, lengthBytes))
        this.#answer(row, packRow(), offset, type);
    }
  }

  /** The answers, each row with that of the first row that wants the same. */
  split(groups: readonly WantedDigests[]): FoundRuns[] {
    let row = 0;
    return groups.map(({ sizeBytes }) => {
      const pack = new Int32Array(sizeBytes.length).fill(-1);
      const offset = new Float64Array(sizeBytes.length);
      for (let i = 0; i < sizeBytes.length; i++, row++) {
        const first = this.#wanted.firstRow[row]!;
        if (first < 0) continue;
        pack[i] = this.#pack[first]!;
        offset[i] = this.#offset[first]!;
      }
      return { pack, offset };
    });
  }

  /** Whether a record of this type is an answer that the row does not have yet. */
  #isBetter(row: number, type: RecordType): boolean {
    return this.#pack[row] === -1 || (this.#stated[row] === 1 && type === RECORD_TYPES.content);
  }

  #answer(row: number, pack: number, offset: number, type: RecordType): void {
    this.#pack[row] = pack;
    this.#offset[row] = offset;
    this.#stated[row] = Number(type === RECORD_TYPES.stated);
  }
}

/** One table over all groups, row after row. */
function tableOf(groups: readonly WantedDigests[]): DigestTable {
  const rows = groups.reduce((sum, { sizeBytes }) => sum + sizeBytes.length, 0);
  const digests = new Uint8Array(rows * DIGEST_BYTES);
  const sizeBytes = new Float64Array(rows);
  let row = 0;
  for (const group of groups) {
    digests.set(group.digests.subarray(0, group.sizeBytes.length * DIGEST_BYTES), row * DIGEST_BYTES);
    sizeBytes.set(group.sizeBytes, row);
    row += group.sizeBytes.length;
  }
  return new DigestTable(digests, sizeBytes);
}

function lazily<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/** Pieces of wanted blobs that packs hold, as flat rows in the order of blob and blobStart; none overlaps another. */
interface ResumedPieces {
  readonly count: number;
  /** Row of the wanted blobs. */
  readonly blob: Uint32Array;
  readonly blobStart: Float64Array;
  readonly blobLength: Float64Array;
  readonly tarStart: Float64Array;
  readonly lengthBytes: Float64Array;
  /** Row of the answer's packs. */
  readonly pack: Int32Array;
  readonly packOffset: Float64Array;
}

/** A piece that may be of use again. */
interface Candidate {
  readonly blob: number;
  readonly sealed: boolean;
  /** It is as the blob has it, byte by byte: any part of it is of use. */
  readonly isBlobPiece: boolean;
  readonly piece: PieceFields;
  /** Row of the answer's packs, asked only for what is chosen. */
  readonly pack: () => number;
  /** Whether its bytes are right; may read them. */
  readonly isTrue: () => boolean;
}

/** What is left of a candidate without its first bytes, which one before it has. */
interface Chosen {
  readonly candidate: Candidate;
  readonly skipBytes: number;
}

/**
 * The candidates that are true and do not overlap, sealed and long ones first where several begin at one place; of a raw one what
 * those before it do not have. Bytes are read only of those that would be chosen.
 */
function choosePieces(candidates: Candidate[]): ResumedPieces {
  candidates.sort(
    (a, b) =>
      a.blob - b.blob ||
      a.piece.blobStart - b.piece.blobStart ||
      Number(b.sealed) - Number(a.sealed) ||
      b.piece.blobLength - a.piece.blobLength,
  );
  const chosen: Chosen[] = [];
  let blob = -1;
  let end = 0;
  for (const candidate of candidates) {
    const { blobStart, blobLength } = candidate.piece;
    const skipBytes = candidate.blob === blob ? Math.max(0, end - blobStart) : 0;
    if (skipBytes > 0 && (!candidate.isBlobPiece || skipBytes >= blobLength)) continue;
    if (!candidate.isTrue()) continue;
    chosen.push({ candidate, skipBytes });
    blob = candidate.blob;
    end = blobStart + blobLength;
  }
  const column = (value: (piece: PieceFields, skipBytes: number) => number) =>
    Float64Array.from(chosen, ({ candidate, skipBytes }) => value(candidate.piece, skipBytes));
  return {
    count: chosen.length,
    blob: Uint32Array.from(chosen, ({ candidate }) => candidate.blob),
    blobStart: column(({ blobStart }, skipBytes) => blobStart + skipBytes),
    blobLength: column(({ blobLength }, skipBytes) => blobLength - skipBytes),
    tarStart: column(({ tarStart }) => tarStart),
    lengthBytes: column(({ lengthBytes }, skipBytes) => lengthBytes - skipBytes),
    pack: Int32Array.from(chosen, ({ candidate }) => candidate.pack()),
    packOffset: column(({ packOffset }, skipBytes) => packOffset + skipBytes),
  };
}
