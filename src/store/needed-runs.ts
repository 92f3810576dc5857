import type { ExtentList } from './extents.js';
import type { PackId } from './paths.js';
import { mergeRuns, type Runs } from './runs.js';

/** What these extents are made of, pack by pack, each byte once. */
export function neededRuns(lists: readonly ExtentList[]): Map<PackId, Runs> {
  const pairs = new Map<PackId, number[]>();
  for (const extents of lists) {
    for (let i = 0; i < extents.count; i++) {
      const offset = extents.offsetAt(i);
      let own = pairs.get(extents.packAt(i));
      if (own === undefined) {
        own = [];
        pairs.set(extents.packAt(i), own);
      }
      own.push(offset, offset + extents.lengthAt(i));
    }
  }
  return new Map([...pairs].map(([id, own]) => [id, mergeRuns(Float64Array.from(own))]));
}
