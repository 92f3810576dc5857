import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FILE, headerAt } from '../../src/export/file-tree.js';
import { flatten } from '../../src/export/flatten.js';
import { effectOf } from '../../src/export/layer-changes.js';
import { ExtentReader } from '../../src/export/layer-source.js';
import { lastAtMost } from '../../src/format/arrays.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import type { TarSource } from '../../src/format/tar-entries.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type {
  FindCoverResult,
  FindCoverTask,
  PartialLayer,
  PickTreeTask,
  TreeRows,
  WritePickedResult,
  WritePickedTask,
} from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { PackedParts, paths } from '../context.js';
import { ROWS_A_TURN } from './tree-directories.js';

/**
 * Finds the highest layer that hides from the layers below everything at a path, by their headers.
 */
export function findCover({ layers, names }: FindCoverTask): FindCoverResult {
  const packs = new PackReader(paths);
  try {
    for (let cover = layers.length - 1; cover >= 0; cover--) {
      const effect = effectOf(partialSource(packs, layers[cover]!), names);
      if (effect === 'unclear') return { cover: -1, isClear: false };
      if (effect === 'covers') return { cover, isClear: true };
    }
    return { cover: -1, isClear: true };
  } finally {
    packs.close();
  }
}

/** Returns the file system at a path of an image, by the headers of its layers. */
export function pickTree({ layers, path, asRoot }: PickTreeTask): TreeRows {
  const packs = new PackReader(paths);
  try {
    const sources = layers.map((layer) => partialSource(packs, layer));
    return flatten(sources, { intoFiles: asRoot, only: { path, asRoot } });
  } finally {
    packs.close();
  }
}

/** Writes headers and padding of a tar to this thread's pack, and hashes the tar. */
export async function writePicked({ tree, contents }: WritePickedTask): Promise<WritePickedResult> {
  const { extents, packs } = await writeTree(tree, ExtentList.fromRows(contents));
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
  return { digest: digestOfBytes(hash.digest()), extents: extents.toRows(), packs: [...packs] };
}

async function writeTree(tree: TreeRows, contents: ExtentList): Promise<PackedParts> {
  const parts = new PackedParts();
  let at = 0;
  for (let row = 0; row < tree.count; row++) {
    if (row % ROWS_A_TURN === 0) await nextTurn();
    parts.add(headerAt(tree, row));
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0) continue;
    const sizeBytes = tree.sizeBytes[row]!;
    parts.flush();
    parts.extents.append(contents.slice(at, at + sizeBytes));
    at += sizeBytes;
    parts.add(tarPadding(sizeBytes));
  }
  parts.add(TAR_END);
  parts.flush();
  return parts;
}

/** Reads the tar of a layer of which only some ranges are stored. */
function partialSource(packs: PackReader, { diffId, tarBytes, extents, ranges }: PartialLayer): TarSource {
  const reader = new ExtentReader(packs, ExtentList.fromRows(extents));
  const offsetOf = ranges === undefined ? (position: number) => position : offsetsIn(ranges);
  return {
    diffId,
    lengthBytes: tarBytes,
    read(position, lengthBytes) {
      const bytes = Buffer.allocUnsafe(lengthBytes);
      reader.readInto(bytes, offsetOf(position, lengthBytes), lengthBytes);
      return bytes;
    },
  };
}

/** Maps positions in the tar to positions in its concatenated stored ranges. */
function offsetsIn(ranges: Float64Array): (position: number, lengthBytes: number) => number {
  const count = ranges.length / 2;
  const starts = Float64Array.from({ length: count }, (_, i) => ranges[i * 2]!);
  const before = new Float64Array(count + 1);
  for (let i = 0; i < count; i++) before[i + 1] = before[i]! + ranges[i * 2 + 1]! - starts[i]!;
  return (position, lengthBytes) => {
    const i = lastAtMost(starts, count, position);
    if (i < 0 || position + lengthBytes > ranges[i * 2 + 1]!) {
      // For example the map of a sparse file, which is in its content.
      throw new PullError(
        'unsupported',
        `byte ${position} of the tar describes a file, but is part of its content`,
      );
    }
    return before[i]! + position - starts[i]!;
  };
}
