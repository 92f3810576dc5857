import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { writeFully } from '../../src/files/storage-error.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type {
  ArchiveLayer,
  ExportLayerResult,
  ExportLayerTask,
  WriteArchiveResult,
  WriteArchiveTask,
} from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';
import { Closed, STDOUT, TarOutput } from './tar-output.js';

/** Writes a layer's tar to a file and hashes it. */
export async function exportLayer(task: ExportLayerTask): Promise<ExportLayerResult> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  const { fd, path } = task.file;
  try {
    let at = task.position;
    for (const block of reader.blocks(ExtentList.fromRows(task.extents))) {
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

/**
 * Writes an archive of layers to the standard output and hashes each layer. The documents that list
 * the layers come last: if a layer is damaged, the reader gets no image and no end of the archive.
 */
export async function writeArchive({ layers, documents }: WriteArchiveTask): Promise<WriteArchiveResult> {
  const output = new TarOutput(STDOUT);
  try {
    for (const [row, layer] of layers.entries()) {
      await output.add(layer.header);
      if (!(await writeLayer(layer, output))) return { closed: false, damaged: row };
      await output.add(tarPadding(layer.tarBytes));
    }
    for (const { header, bytes } of documents) {
      await output.add(header);
      await output.add(bytes);
      await output.add(tarPadding(bytes.length));
    }
    await output.add(TAR_END);
    await output.flush();
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
    return { closed: true };
  }
  return { closed: false };
}

/** Writes a layer. Returns whether its bytes hash to the DiffID. */
async function writeLayer({ diffId, extents }: ArchiveLayer, output: TarOutput): Promise<boolean> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  try {
    for (const block of reader.blocks(ExtentList.fromRows(extents))) {
      hash.update(block);
      await output.add(block);
      count(setup.counters, 'written', block.length);
    }
  } finally {
    reader.close();
  }
  return digestOfBytes(hash.digest()) === diffId;
}
