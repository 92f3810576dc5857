import { paddingOf } from '../../src/format/tar-fields.js';
import { copyTarBytes } from '../../src/format/tar-split.js';
import { tarHeader } from '../../src/format/tar-writer.js';
import { eachTocHeader } from '../../src/format/toc-headers.js';
import type { PackRun, WriteInlineTask, WrittenHeaders } from '../../src/pool/messages.js';
import { PackedParts, packWriter } from '../context.js';
import { releaseLargeGarbage } from '../garbage.js';
import { MetadataSource, readTarSplit } from './metadata-source.js';

/** Appends these ranges of tar-split to this thread's pack, in one run. */
export async function writeInline({ blob, tarSplit, ranges }: WriteInlineTask): Promise<PackRun> {
  try {
    const bytesOfTar = await readTarSplit(new MetadataSource(blob), tarSplit);
    let lengthBytes = 0;
    for (let i = 0; i < ranges.length; i += 2) lengthBytes += ranges[i + 1]! - ranges[i]!;
    const writer = packWriter();
    const region = writer.reserve(lengthBytes);
    let at = region.start;
    copyTarBytes(bytesOfTar, ranges, (bytes) => {
      writer.writeUnindexed(region, bytes, at);
      at += bytes.length;
    });
    return { pack: region.pack, packOffset: region.start, lengthBytes };
  } finally {
    await releaseLargeGarbage(tarSplit.uncompressedBytes);
  }
}

/**
 * Writes the headers of a tar with the entries of a TOC to this thread's pack.
 * @param tocName adds the TOC under this name as the last file, as eStargz has it; it is no row of
 *   the layer's table
 * @throws PullError as `eachTocHeader` and `storageError`
 */
export function writeHeaders(toc: Buffer, tocName?: string): WrittenHeaders {
  const parts = new PackedParts();
  const ranges: number[] = [];
  let [start, at] = [0, 0];
  const add = (header: Buffer, contentBytes: number) => {
    parts.add(header);
    at += header.length;
    if (contentBytes === 0) return;
    ranges.push(start, at);
    at += contentBytes + paddingOf(contentBytes);
    start = at;
  };
  eachTocHeader(toc, add);
  if (tocName !== undefined) {
    const ids = { mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
    add(tarHeader({ type: '0', name: tocName, sizeBytes: toc.length, ...ids }), toc.length);
  }
  parts.flush();
  if (at > start) ranges.push(start, at);
  return { extents: parts.extents.toRows(), ranges: Float64Array.from(ranges), tarBytes: at };
}
