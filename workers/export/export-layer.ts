import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { writeFully } from '../../src/files/storage-error.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { count } from '../../src/pool/counters.js';
import type { ExportLayerResult, ExportLayerTask } from '../../src/pool/messages.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';
import { extentsOf } from '../extents.js';

/** Writes a layer's tar to a file, hashing it on the way. */
export async function exportLayer(task: ExportLayerTask): Promise<ExportLayerResult> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  const { fd, path } = task.file;
  try {
    let at = task.position;
    for (const block of reader.blocks(extentsOf(task.extents))) {
      hash.update(block);
      writeFully(fd, path, block, at);
      at += block.length;
      count(setup.counters, 'written', block.length);
      await nextTurn();
    }
  } finally {
    reader.close();
  }
  return { digest: digestOfBytes(hash.digest()) };
}
