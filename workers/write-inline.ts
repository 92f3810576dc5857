import { PullError } from '../src/format/error.js';
import { copyTarBytes } from '../src/format/tar-split.js';
import type { WriteInlineResult, WriteInlineTask } from '../src/pool/messages.js';
import { getBlob } from '../src/store/blob-cache.js';
import { packWriter, paths } from './context.js';
import { decodeMetadata } from './metadata-blob.js';

/** Appends the tar-split bytes of these ranges to this thread's pack, in one run. */
export async function writeInline(task: WriteInlineTask): Promise<WriteInlineResult> {
  const frames = getBlob(paths, task.tarSplitDigest);
  if (frames === undefined) {
    throw new PullError('store-broken', 'the kept tar-split of the layer is gone from the store', {
      hint: 'pull again: it is fetched anew',
    });
  }
  const tarSplit = await decodeMetadata(frames, task.tarSplitRawBytes, 'tar-split');
  let lengthBytes = 0;
  for (let i = 0; i < task.ranges.length; i += 2) lengthBytes += task.ranges[i + 1]! - task.ranges[i]!;
  const writer = packWriter();
  const region = writer.reserve(lengthBytes);
  let at = region.start;
  copyTarBytes(tarSplit, task.ranges, (bytes) => {
    writer.writePlain(region, bytes, at);
    at += bytes.length;
  });
  return { pack: region.pack, packOffset: region.start, lengthBytes };
}
