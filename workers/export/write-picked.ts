import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FILE } from '../../src/export/file-tree.js';
import { headerAt } from '../../src/export/tar-item.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type { TreeRows, WritePickedResult, WritePickedTask } from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { packWriter, paths } from '../context.js';
import { extentsOf } from '../extents.js';

/** Bytes written with one call, about. */
const WRITE_BYTES = 2 ** 20;

/** Writes what is no content of the tar to this thread's pack, and hashes the whole. */
export async function writePicked({ tree, contents }: WritePickedTask): Promise<WritePickedResult> {
  const plain = new PlainBytes();
  const extents = writeTree(tree, extentsOf(contents), plain);
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

function writeTree(tree: TreeRows, contents: ExtentList, plain: PlainBytes): ExtentList {
  const extents = new ExtentList();
  let at = 0;
  for (let row = 0; row < tree.count; row++) {
    plain.add(headerAt(tree, row));
    if (plain.lengthBytes >= WRITE_BYTES) plain.flush(extents);
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0) continue;
    const sizeBytes = tree.sizeBytes[row]!;
    plain.flush(extents);
    extents.append(contents.slice(at, at + sizeBytes));
    at += sizeBytes;
    plain.add(tarPadding(sizeBytes));
  }
  plain.add(TAR_END);
  plain.flush(extents);
  return extents;
}

/** Gathers bytes until they are written. */
class PlainBytes {
  /** Those that were written to. */
  readonly packs = new Set<string>();
  lengthBytes = 0;
  #parts: Buffer[] = [];

  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.lengthBytes += bytes.length;
  }

  /** Writes them, and appends where they are. */
  flush(extents: ExtentList): void {
    if (this.lengthBytes === 0) return;
    const writer = packWriter();
    const region = writer.reserve(this.lengthBytes);
    writer.writePlain(region, Buffer.concat(this.#parts), region.start);
    this.packs.add(region.pack);
    extents.push(region.pack, region.start, this.lengthBytes);
    this.#parts = [];
    this.lengthBytes = 0;
  }
}
