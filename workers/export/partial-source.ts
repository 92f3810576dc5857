import { ExtentReader } from '../../src/export/extent-reader.js';
import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import type { TarSource } from '../../src/format/tar-entries.js';
import type { PartialLayer } from '../../src/pool/messages.js';
import type { PackReader } from '../../src/store/pack-reader.js';
import { extentsOf } from '../extents.js';

/** The tar of a layer of which parts are here; what is not cannot be read. */
export function partialSource(
  packs: PackReader,
  { diffId, tarBytes, extents, ranges }: PartialLayer,
): TarSource {
  const reader = new ExtentReader(packs, extentsOf(extents));
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
