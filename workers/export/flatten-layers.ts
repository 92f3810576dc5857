import { flatten } from '../../src/export/flatten.js';
import { HeaderComparison } from '../../src/export/header-source.js';
import { effectOf } from '../../src/export/layer-effect.js';
import { ExtentReader } from '../../src/export/layer-source.js';
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

/** The file system that the pool's layers make; of the layers only headers are read. */
export function flattenLayers({ intoFiles, path, layers }: FlattenTask): TreeRows {
  const comparison = new HeaderComparison();
  try {
    const only = path === undefined ? undefined : { path, asRoot: intoFiles };
    return flatten(headerSources(comparison, layers), { intoFiles, only });
  } finally {
    // Headers that make no sense may be none that were hashed: that is the reason then.
    comparison.finish();
  }
}

/** The highest of some layers that hides from a path what lies below it, by their headers. */
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

/** The file system that is at a path of an image, by the headers of its layers. */
export function pickTree({ layers, path, asRoot }: PickTreeTask): TreeRows {
  const packs = new PackReader(paths);
  try {
    const sources = layers.map((layer) => partialSource(packs, layer));
    return flatten(sources, { intoFiles: asRoot, only: { path, asRoot } });
  } finally {
    packs.close();
  }
}

/** The tar of a layer of which parts are here; what is not cannot be read. */
export function partialSource(
  packs: PackReader,
  { diffId, tarBytes, extents, ranges }: PartialLayer,
): TarSource {
  const reader = new ExtentReader(packs, ExtentList.fromRows(extents));
  const placeOf = ranges === undefined ? (position: number) => position : placesIn(ranges);
  return {
    diffId,
    lengthBytes: tarBytes,
    read(position, lengthBytes) {
      const bytes = Buffer.allocUnsafe(lengthBytes);
      reader.readInto(bytes, placeOf(position, lengthBytes), lengthBytes);
      return bytes;
    },
  };
}

/** Where in the parts of a tar that are here, put together, bytes of it lie. */
function placesIn(ranges: Float64Array): (position: number, lengthBytes: number) => number {
  const count = ranges.length / 2;
  const starts = Float64Array.from({ length: count }, (_, i) => ranges[i * 2]!);
  const before = new Float64Array(count + 1);
  for (let i = 0; i < count; i++) before[i + 1] = before[i]! + ranges[i * 2 + 1]! - starts[i]!;
  return (position, lengthBytes) => {
    const i = lastAtMost(starts, count, position);
    if (i < 0 || position + lengthBytes > ranges[i * 2 + 1]!) {
      // Such as the map of a sparse file, which stands in its content.
      throw new PullError(
        'unsupported',
        `byte ${position} of the tar is of a content and tells about the file`,
      );
    }
    return before[i]! + position - starts[i]!;
  };
}
