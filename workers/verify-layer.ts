import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestOfBytes } from '../src/format/digest.js';
import { count } from '../src/pool/counters.js';
import type { ExtentRows, VerifyLayerResult, VerifyLayerTask } from '../src/pool/messages.js';
import { NotInPack, PackReader } from '../src/store/pack-reader.js';
import { paths, setup } from './context.js';
import { extentsOf } from './extents.js';
import { portMessages } from './port-messages.js';

/** Blocks of 1 MiB hashed before other tasks of this thread have their turn: about 4 ms. */
const BLOCKS_A_TURN = 8;

/** Hashes the extents that come through the port, in order, until there are no more. */
export async function verifyLayer(task: VerifyLayerTask): Promise<VerifyLayerResult> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  try {
    for await (const rows of portMessages<ExtentRows>(task.port)) {
      let blocks = 0;
      for (const block of reader.blocks(extentsOf(rows))) {
        hash.update(block);
        count(setup.counters, 'verified', block.length);
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
      }
    }
  } catch (error) {
    if (error instanceof NotInPack) return { digest: null };
    throw error;
  } finally {
    reader.close();
    task.port.close();
  }
  return { digest: digestOfBytes(hash.digest()) };
}
