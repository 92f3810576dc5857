import { markBad, type PackRun } from './bad-runs.js';
import type { ExtentList } from './extents.js';
import { IndexScan, listIndexedPacks } from './index-files.js';
import { pieceOf, RECORD_TYPES } from './index-format.js';
import type { PackReader } from './pack-reader.js';
import type { PackId, StorePaths } from './paths.js';
import { PieceProof } from './piece-proof.js';

/**
 * Marks these extents as bad as far as they lie in pieces whose bytes fail their own record. That they are not what
 * somebody wanted is no reason: the wish may be the lie, and other layers may be made of the same bytes. The rest of
 * such a piece stays: what it holds of proven contents is right.
 * @throws PullError as `storageError`
 */
export function markRotten(paths: StorePaths, reader: PackReader, suspects: ExtentList): void {
  const byPack = new Map(suspects.packs.map((id): [PackId, PackRun[]] => [id, []]));
  for (let row = 0; row < suspects.count; row++) {
    const run = { offset: suspects.offsetAt(row), lengthBytes: suspects.lengthAt(row) };
    byPack.get(suspects.packAt(row))!.push(run);
  }
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
    const rotten = runs.flatMap(({ offset, lengthBytes }) => proof.falseParts(offset, lengthBytes));
    if (rotten.length > 0) markBad(paths, pack.id, rotten);
  }
}
