import { BlockTags, PartTags } from '../../src/export/block-tags.js';
import { flatten } from '../../src/export/flatten.js';
import { effectOf } from '../../src/export/layer-changes.js';
import {
  BlockCache,
  ExtentReader,
  HeaderComparison,
  HeaderSource,
  LayerSource,
} from '../../src/export/layer-source.js';
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
import { paths, setup } from '../context.js';

/** Flattens the layers of the exported image, of which it reads the headers alone. */
export function flattenLayers({ intoFiles, path, layers }: FlattenTask): TreeRows {
  const comparison = new HeaderComparison();
  const sources = openLayers(layers).map((layer) => new HeaderSource(layer, comparison));
  try {
    const only = path === undefined ? undefined : { path, asRoot: intoFiles };
    return flatten(sources, { intoFiles, only });
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

let sources: readonly LayerSource[] | undefined;

/**
 * Returns the layers of the exported image, opened once a thread. `given` has them if the pool was
 * started before they were known.
 */
export function layerSources(given = setup.layers): readonly LayerSource[] {
  sources ??= openLayers(given).map(({ whole }) => whole.source);
  return sources;
}

function openLayers(layers = setup.layers) {
  if (layers === undefined) throw new Error('this pool was started without layers');
  const packs = new PackReader(paths);
  const cache = new BlockCache();
  return layers.map(({ diffId, extents, tags: rows }) => {
    const reader = new ExtentReader(packs, ExtentList.fromRows(extents));
    const tags = new BlockTags(rows);
    const source = new LayerSource(cache, { diffId, reader, tags });
    return { diffId, reader, partTags: new PartTags(rows), whole: { tags, source } };
  });
}
