import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BlockTagger } from '../../src/export/block-tags.js';
import { digestOfBytes } from '../../src/format/digest.js';
import type { VerifyLayerResult, VerifyLayerTask } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { ExtentList, type ExtentRows } from '../../src/store/extents.js';
import { MissingBytes, PackReader } from '../../src/store/pack-reader.js';
import { packWriter, paths, setup } from '../context.js';
import { portMessages } from '../port-messages.js';

/** Blocks of 1 MiB hashed before other tasks of this thread may run: about 4 ms. */
const BLOCKS_A_TURN = 8;

/** Tar programs write records of 20 blocks, the last one filled up with zeros (POSIX pax, "-b"). */
const RECORD_BYTES = 10_240;

/** Hashes the extents that arrive through the port. */
export async function verifyLayer(task: VerifyLayerTask): Promise<VerifyLayerResult> {
  const hash = createHash('sha256');
  const tagger = task.tags && new BlockTagger(task.tags);
  const reader = new PackReader(paths);
  let lengthBytes = 0;
  try {
    for await (const rows of portMessages<ExtentRows>(task.port)) {
      let blocks = 0;
      for (const block of reader.blocks(ExtentList.fromRows(rows))) {
        hash.update(block);
        tagger?.add(block);
        lengthBytes += block.length;
        count(setup.counters, 'verified', block.length);
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
      }
    }
  } catch (error) {
    if (error instanceof MissingBytes) return { digest: null, isTagged: false };
    throw error;
  } finally {
    reader.close();
    task.port.close();
  }
  return proof(task, hash, lengthBytes, tagger);
}

/** If the digest is not the DiffID, tries again with the zeros that complete the last record. */
function proof(
  { diffId }: VerifyLayerTask,
  hash: Hash,
  lengthBytes: number,
  tagger: BlockTagger | undefined,
): VerifyLayerResult {
  const digest = digestOfBytes(hash.copy().digest());
  const missingBytes = (RECORD_BYTES - (lengthBytes % RECORD_BYTES)) % RECORD_BYTES;
  const asIs = () => ({ digest, isTagged: tagger?.end() ?? false });
  if (digest === diffId || missingBytes === 0) return asIs();
  const zeros = Buffer.alloc(missingBytes);
  if (digestOfBytes(hash.update(zeros).digest()) !== diffId) return asIs();
  tagger?.add(zeros);
  const writer = packWriter();
  const region = writer.reserve(missingBytes);
  writer.writeUnindexed(region, zeros, region.start);
  return {
    digest: diffId,
    isTagged: tagger?.end() ?? false,
    padding: { pack: region.pack, packOffset: region.start, lengthBytes: missingBytes },
  };
}
