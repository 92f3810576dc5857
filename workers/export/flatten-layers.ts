import { flatten } from '../../src/export/flatten.js';
import { effectOf } from '../../src/export/layer-changes.js';
import { ExtentReader, HeaderComparison } from '../../src/export/layer-source.js';
import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import type { TarSource } from '../../src/format/tar-entries.js';
import type {
  FindCoverResult,
  FindCoverTask,
  FlattenTask,
  PartialLayer,
  PickTreeTask,
  TreeRows,
} from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { headerSources } from './layer-sources.js';

/** Flattens the layers of the exported image, of which it reads the headers alone. */
export function flattenLayers({ intoFiles, path, layers }: FlattenTask): TreeRows {
  const comparison = new HeaderComparison();
  try {
    const only = path === undefined ? undefined : { path, asRoot: intoFiles };
    return flatten(headerSources(comparison, layers), { intoFiles, only });
  } finally {
    // Throws if the headers differ from what was hashed, which may be why they are malformed.
    comparison.finish();
  }
}

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
