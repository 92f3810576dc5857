import { copyTarBytes } from '../../src/format/tar-split.js';
import type { PackRun, WriteInlineTask } from '../../src/pool/messages.js';
import { packWriter } from '../context.js';
import { releaseLargeGarbage } from '../garbage.js';
import { MetadataSource, readTarSplit } from '../metadata/metadata-source.js';

/** Appends these ranges of tar-split to this thread's pack, in one run. */
export async function writeInline(task: WriteInlineTask): Promise<PackRun> {
  try {
    return await writeRanges(task);
  } finally {
    await releaseLargeGarbage(task.tarSplit.uncompressedBytes);
  }
}

async function writeRanges(task: WriteInlineTask): Promise<PackRun> {
  const tarSplit = await readTarSplit(new MetadataSource(task.blob), task.tarSplit);
  let lengthBytes = 0;
  for (let i = 0; i < task.ranges.length; i += 2) lengthBytes += task.ranges[i + 1]! - task.ranges[i]!;
  const writer = packWriter();
  const region = writer.reserve(lengthBytes);
  let at = region.start;
  copyTarBytes(tarSplit, task.ranges, (bytes) => {
    writer.writeUnindexed(region, bytes, at);
    at += bytes.length;
  });
  return { pack: region.pack, packOffset: region.start, lengthBytes };
}
