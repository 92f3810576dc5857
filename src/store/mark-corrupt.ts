import { DIGEST_BYTES } from '../format/digest.js';
import { markBad } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { digestOfExtents } from './has-digest.js';
import { IndexCorrection } from './index-correction.js';
import { type IndexedPack, IndexScan, listIndexedPacks } from './index-files.js';
import { digestStart, lengthOf, packOffsetOf, pieceOf, RECORD_TYPES } from './index-format.js';
import { neededRuns } from './needed-runs.js';
import type { PackReader } from './pack-reader.js';
import type { StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';
import { type Runs, touchesRun } from './runs.js';

/**
 * Marks these extents as bad as far as they lie in pieces whose bytes fail their own record. That they are not what
 * somebody wanted is no reason: the wish may be the lie, and other layers may be made of the same bytes. The rest of
 * such a piece stays: what it holds of proven contents is right. Of pieces that are right, the records that lied are
 * corrected: digests that metadata stated, and, of the pieces of `blobDigest`, that they are what that blob has there.
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
    const rotten = [];
    for (let i = 0; i < runs.length; i += 2)
      rotten.push(...proof.falseParts(runs[i]!, runs[i + 1]! - runs[i]!));
    if (rotten.length > 0) markBad(paths, pack.id, rotten);
    correctRecords(paths, reader, indexes, { pack, runs, proof }, blobDigest);
  }
}

/** Corrects the records of one pack that touch these runs and are not true of bytes that are as they were written. */
function correctRecords(
  paths: StorePaths,
  reader: PackReader,
  indexes: IndexScan,
  { pack, runs, proof }: { pack: IndexedPack; runs: Runs; proof: PieceProof },
  blobDigest: Uint8Array | undefined,
): void {
  const { block } = indexes;
  const correction = new IndexCorrection(paths, pack);
  const digestIn = (at: number) => block.subarray(digestStart(at), digestStart(at) + DIGEST_BYTES);
  const isOfBlob = (at: number) => blobDigest !== undefined && digestIn(at).equals(blobDigest);
  indexes.read(
    pack,
    (type, at) => {
      const offset = packOffsetOf(block, at);
      const isAsked = type === RECORD_TYPES.stated || (type === RECORD_TYPES.piece && isOfBlob(at));
      return isAsked && touchesRun(runs, offset, offset + lengthOf(block, at));
    },
    (type, at) => {
      const position = indexes.blockStart + at;
      const offset = packOffsetOf(block, at);
      const lengthBytes = lengthOf(block, at);
      if (!proof.covers(offset, lengthBytes)) return;
      if (type === RECORD_TYPES.piece) {
        correction.pieceOfNoBlob(position, pieceOf(block, at));
        return;
      }
      const extents = new ExtentList();
      extents.push(pack.id, offset, lengthBytes);
      const digest = digestOfExtents(reader, extents);
      if (digest !== undefined && !digest.equals(digestIn(at)))
        correction.content(position, digest, { offset, lengthBytes });
    },
  );
  correction.close();
}
