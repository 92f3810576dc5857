import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FILE, headerAt } from '../../src/export/file-tree.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type { TreeRows, WritePickedResult, WritePickedTask } from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { PlainBytes } from '../plain-bytes.js';
import { ROWS_A_TURN } from './tree-directories.js';

/** Writes headers and padding of a tar to this thread's pack, and hashes the tar. */
export async function writePicked({ tree, contents }: WritePickedTask): Promise<WritePickedResult> {
  const plain = new PlainBytes();
  const extents = await writeTree(tree, ExtentList.fromRows(contents), plain);
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  try {
    for (const block of reader.blocks(extents)) {
      hash.update(block);
      await nextTurn();
    }
  } finally {
    reader.close();
  }
  return { digest: digestOfBytes(hash.digest()), extents: extents.toRows(), packs: [...plain.packs] };
}

async function writeTree(tree: TreeRows, contents: ExtentList, plain: PlainBytes): Promise<ExtentList> {
  const extents = new ExtentList();
  let at = 0;
  for (let row = 0; row < tree.count; row++) {
    if (row % ROWS_A_TURN === 0) await nextTurn();
    plain.add(headerAt(tree, row), extents);
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0) continue;
    const sizeBytes = tree.sizeBytes[row]!;
    plain.flush(extents);
    extents.append(contents.slice(at, at + sizeBytes));
    at += sizeBytes;
    plain.add(tarPadding(sizeBytes), extents);
  }
  plain.add(TAR_END, extents);
  plain.flush(extents);
  return extents;
}
