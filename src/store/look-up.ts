import { type Digest, DigestTable, digestBytes } from '../format/digest.js';
import {
  digestStart,
  hasRun,
  type IndexedPack,
  IndexScan,
  isContent,
  lengthOf,
  listIndexedPacks,
  type PieceFields,
  packOffsetOf,
  pieceOf,
  RECORD_TYPES,
  type RecordType,
} from './pack-index.js';
import { PackReader } from './pack-reader.js';
import type { PackId, StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';

/** Digests to look up, such as those of a layer's contents or chunks. */
export interface RequestedDigests {
  /** DIGEST_BYTES bytes a row. */
  readonly digests: Uint8Array;
  /** The length of the run, in bytes, which must match. */
  readonly sizeBytes: Float64Array;
}

/** A blob of which the store may have pieces; each (digest, raw) at most once. */
interface RequestedBlob {
  readonly digest: Digest;
  /** Whether to look for its raw bytes, or else for decoded ones. */
  readonly raw: boolean;
}

export interface LookUpRequest {
  readonly digests: readonly RequestedDigests[];
  readonly blobs: readonly RequestedBlob[];
}

/** The runs of the requested digests, row by row. */
interface FoundRuns {
  /** Row of the answer's packs, or -1 if no pack has the run. */
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
 * Finds the requested digests and the pieces of the requested blobs in the store's packs. Scans all
 * indexes against a table of the request, which is smaller than the store; a pull does this once.
 * Trusts sealed packs and prefers them; reads the bytes of unsealed packs and compares their crc32.
 * Prefers a computed digest to a stated one, which the caller verifies by the DiffID. Synchronous,
 * for a worker thread.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
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

/**
 * The state of one look-up. Invariant: a row keeps its first answer, unless that is stated and a
 * computed one follows.
 */
class Search {
  readonly packs: PackId[] = [];
  readonly candidates: Candidate[] = [];
  readonly #reader: PackReader;
  readonly #scan: IndexScan;
  readonly #requested: DigestTable;
  readonly #blobs: DigestTable;
  readonly #pack: Int32Array;
  readonly #offset: Float64Array;
  /** 1 for a row whose answer has a stated digest. */
  readonly #stated: Uint8Array;

  constructor(paths: StorePaths, reader: PackReader, request: LookUpRequest) {
    this.#scan = new IndexScan(paths);
    this.#reader = reader;
    this.#requested = DigestTable.of(request.digests);
    this.#blobs = new DigestTable(
      Buffer.concat(request.blobs.map(({ digest }) => digestBytes(digest))),
      Float64Array.from(request.blobs, ({ raw }) => Number(raw)),
    );
    const rows = this.#requested.firstRow.length;
    this.#pack = new Int32Array(rows).fill(-1);
    this.#offset = new Float64Array(rows);
    this.#stated = new Uint8Array(rows);
  }

  /** Adds the answers of one pack to rows without a better one. */
  scan(pack: IndexedPack): void {
    const { block } = this.#scan;
    const proof = pack.sealed ? undefined : new PieceProof(this.#reader, pack.id);
    let ownRow: number | undefined;
    const packRow = () => (ownRow ??= this.packs.push(pack.id) - 1);
    const unproven: { row: number; offset: number; lengthBytes: number; type: RecordType }[] = [];
    let row = -1;
    const filter = (type: RecordType, at: number): boolean => {
      if (isContent(type)) {
        if (!this.#requested.mayHave(block, digestStart(at))) return false;
        row = this.#requested.find(block, digestStart(at), lengthOf(block, at));
        return row >= 0 && this.#isBetter(row, type);
      }
      row = this.#blobs.find(block, digestStart(at), Number(type === RECORD_TYPES.raw));
      return row >= 0 || proof !== undefined;
    };
    this.#scan.read(pack, filter, (type, at) => {
      const offset = packOffsetOf(block, at);
      const lengthBytes = lengthOf(block, at);
      const exists = hasRun(pack, offset, lengthBytes);
      if (isContent(type)) {
        if (exists && proof === undefined) this.#answer(row, packRow(), offset, type);
        else if (exists) unproven.push({ row, offset, lengthBytes, type });
        return;
      }
      const piece = pieceOf(block, at);
      // A piece with a bad run still proves the other runs in it.
      proof?.add(offset, lengthBytes, piece.crc32);
      if (row < 0 || !exists) return;
      const isIntact = () => proof === undefined || proof.covers(offset, lengthBytes);
      const isBlobPiece = type === RECORD_TYPES.raw;
      this.candidates.push({ blob: row, sealed: pack.sealed, isBlobPiece, piece, pack: packRow, isIntact });
    });
    for (const { row, offset, lengthBytes, type } of unproven) {
      if (this.#isBetter(row, type) && proof?.covers(offset, lengthBytes))
        this.#answer(row, packRow(), offset, type);
    }
  }

  /** Returns the answers by group; rows with the same digest share one. */
  split(groups: readonly RequestedDigests[]): FoundRuns[] {
    let row = 0;
    return groups.map(({ sizeBytes }) => {
      const pack = new Int32Array(sizeBytes.length).fill(-1);
      const offset = new Float64Array(sizeBytes.length);
      for (let i = 0; i < sizeBytes.length; i++, row++) {
        const first = this.#requested.firstRow[row]!;
        if (first < 0) continue;
        pack[i] = this.#pack[first]!;
        offset[i] = this.#offset[first]!;
      }
      return { pack, offset };
    });
  }

  /** Returns whether a record of this type improves the answer of a row. */
  #isBetter(row: number, type: RecordType): boolean {
    return this.#pack[row] === -1 || (this.#stated[row] === 1 && type === RECORD_TYPES.content);
  }

  #answer(row: number, pack: number, offset: number, type: RecordType): void {
    this.#pack[row] = pack;
    this.#offset[row] = offset;
    this.#stated[row] = Number(type === RECORD_TYPES.stated);
  }
}

/**
 * Pieces of the requested blobs that packs have, as columns, ordered by blob and blobStart; none
 * overlaps another.
 */
interface ResumedPieces {
  readonly count: number;
  /** Row of the request's blobs. */
  readonly blob: Uint32Array;
  readonly blobStart: Float64Array;
  readonly blobLength: Float64Array;
  readonly tarStart: Float64Array;
  readonly lengthBytes: Float64Array;
  /** Row of the answer's packs. */
  readonly pack: Int32Array;
  readonly packOffset: Float64Array;
}

/** A piece that may be reused. */
interface Candidate {
  readonly blob: number;
  readonly sealed: boolean;
  /** A raw piece, any part of which can be reused. */
  readonly isBlobPiece: boolean;
  readonly piece: PieceFields;
  /** Returns the row of the answer's packs; called only for chosen pieces. */
  readonly pack: () => number;
  /** Returns whether its bytes are right, and may read them. */
  readonly isIntact: () => boolean;
}

/**
 * Chooses valid candidates that do not overlap. Of those with the same start, prefers sealed and
 * then long ones; trims raw ones that overlap earlier ones. Reads the bytes only of candidates that
 * it would choose.
 */
function choosePieces(candidates: Candidate[]): ResumedPieces {
  candidates.sort(
    (a, b) =>
      a.blob - b.blob ||
      a.piece.blobStart - b.piece.blobStart ||
      Number(b.sealed) - Number(a.sealed) ||
      b.piece.blobLength - a.piece.blobLength,
  );
  /** Candidates without their first bytes, which earlier ones have. */
  const chosen: { readonly candidate: Candidate; readonly skipBytes: number }[] = [];
  let blob = -1;
  let end = 0;
  for (const candidate of candidates) {
    const { blobStart, blobLength } = candidate.piece;
    const skipBytes = candidate.blob === blob ? Math.max(0, end - blobStart) : 0;
    if (skipBytes > 0 && (!candidate.isBlobPiece || skipBytes >= blobLength)) continue;
    if (!candidate.isIntact()) continue;
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
