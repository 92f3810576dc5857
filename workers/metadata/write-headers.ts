import { paddingOf } from '../../src/format/tar-fields.js';
import { tarHeader } from '../../src/format/tar-writer.js';
import { eachTocHeader } from '../../src/format/toc-headers.js';
import type { WrittenHeaders } from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PlainBytes } from '../plain-bytes.js';

/**
 * Writes the headers of a tar with the entries of a TOC to this thread's pack.
 * @param tocName adds the TOC under this name as the last file, as eStargz has it; it is no row of
 *   the layer's table
 * @throws PullError as `eachTocHeader` and `storageError`
 */
export function writeHeaders(toc: Buffer, tocName?: string): WrittenHeaders {
  const extents = new ExtentList();
  const plain = new PlainBytes();
  const ranges: number[] = [];
  let [start, at] = [0, 0];
  const add = (header: Buffer, contentBytes: number) => {
    plain.add(header, extents);
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
  plain.flush(extents);
  if (at > start) ranges.push(start, at);
  return { extents: extents.toRows(), ranges: Float64Array.from(ranges), tarBytes: at };
}
