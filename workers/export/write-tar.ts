import { dirname } from 'node:path';
import { headerAt, leastTarBytes } from '../../src/export/file-tree.js';
import { openSpecialFile } from '../../src/export/output-files.js';
import { requireSpace } from '../../src/files/disk-space.js';
import { closeWritten } from '../../src/files/storage-error.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type { TreeRows, WriteTarResult, WriteTarTask } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { Closed, STDOUT, TarOutput } from './tar-output.js';

/** Writes the file system as one tar: headers from the rows, contents from the layers. */
export async function writeTar({ tree, to }: WriteTarTask): Promise<WriteTarResult> {
  if (to === undefined) return writeItems(tree, new TarOutput(STDOUT));
  if ('fd' in to) {
    await requireSpace(dirname(to.path), leastTarBytes(tree));
    return writeItems(tree, new TarOutput(to));
  }
  const fd = await openSpecialFile(to);
  try {
    return await writeItems(tree, new TarOutput({ fd, path: to.path }));
  } finally {
    closeWritten(fd, to.path);
  }
}

async function writeItems(tree: TreeRows, output: TarOutput): Promise<WriteTarResult> {
  const sources = layerSources();
  try {
    for (let row = 0; row < tree.count; row++) {
      const header = headerAt(tree, row);
      if (!output.put(header)) await output.add(header);
      const sizeBytes = tree.sizeBytes[row]!;
      const source = sources[tree.layer[row]!]!;
      for (let done = 0; done < sizeBytes; ) {
        const part = source.part(tree.contentStart[row]! + done, sizeBytes - done);
        if (!output.put(part)) await output.add(part);
        done += part.length;
        count(setup.counters, 'written', part.length);
      }
      const padding = tarPadding(sizeBytes);
      if (!output.put(padding)) await output.add(padding);
    }
    await output.add(TAR_END);
    await output.flush();
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
    return { closed: true };
  }
  return { closed: false };
}
