import { createHash } from 'node:crypto';
import { openSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestOfBytes } from '../src/format/digest.js';
import { count } from '../src/pool/counters.js';
import type { ExportLayerResult, ExportLayerTask } from '../src/pool/messages.js';
import { PackReader } from '../src/store/pack-reader.js';
import { closeWritten, onDisk, writeFully } from '../src/store/storage-error.js';
import { paths, setup } from './context.js';
import { extentsOf } from './extents.js';

/** Writes a layer's tar to a file, hashing it on the way. */
export async function exportLayer(task: ExportLayerTask): Promise<ExportLayerResult> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  const flags = task.position === undefined ? 'w' : 'r+';
  const fd = onDisk(`create ${task.path}`, () => openSync(task.path, flags));
  try {
    let at = task.position ?? 0;
    for (const block of reader.blocks(extentsOf(task.extents))) {
      hash.update(block);
      writeFully(fd, task.path, block, at);
      at += block.length;
      count(setup.counters, 'written', block.length);
      await nextTurn();
    }
  } finally {
    reader.close();
    closeWritten(fd, task.path);
  }
  return { digest: digestOfBytes(hash.digest()) };
}
