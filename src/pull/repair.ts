import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { markBad } from '../store/bad-runs.js';
import { ExtentList } from '../store/extents.js';
import type { PullContext } from './context.js';
import type { Fetcher } from './fetcher.js';
import { writeInline } from './inline.js';
import type { ChunkedLayer } from './layer.js';
import { LayerProver } from './prover.js';

interface Repair {
  readonly context: PullContext;
  readonly layer: ChunkedLayer;
  readonly index: number;
  readonly extents: ExtentList;
  /** What the extents hash to instead of the DiffID. */
  readonly actual: Digest;
  readonly fetcher: Fetcher;
}

/** New bytes for a part of the tar. */
interface Patch {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly extents: ExtentList;
}

/**
 * A layer whose DiffID failed: what was reused or resumed may be false. Contents are checked by digest and the rest
 * against tar-split; what is false is marked in its pack, fetched or written anew, and the whole is proven again.
 * @returns the extents that prove true
 * @throws PullError `digest-mismatch` when nothing false is found or the second proof fails
 */
export async function repairLayer(repair: Repair): Promise<ExtentList> {
  const { context, layer, extents } = repair;
  const damage = await context.support.run({
    task: 'find-damage',
    table: layer.table,
    tarSplitDigest: layer.tarSplitDigest,
    tarSplitRawBytes: layer.positions.tarSplit.rawBytes,
    extents: extents.toRows(),
  });
  if (damage.contents.length === 0 && damage.raw.length === 0) throw mismatch(layer, repair.actual);
  context.emit({
    event: 'warning',
    message: `${damage.contents.length + damage.raw.length / 2} parts in the store are damaged and are replaced`,
  });
  const patches = await context.stop.guard(
    Promise.all([...damage.contents.map((row) => refetch(repair, row)), rewriteInline(repair, damage.raw)]),
  );
  const mended = splice(extents, patches.flat());
  const prover = new LayerProver(context.support);
  prover.feed(mended);
  const actual = await prover.end();
  if (actual !== layer.diffId) throw mismatch(layer, actual);
  return mended;
}

function refetch({ context, layer, index, extents, fetcher }: Repair, row: number): Promise<Patch[]> {
  const { blobStart, blobEnd, tarStart, sizeBytes } = layer.table;
  const start = tarStart[row]!;
  const end = start + sizeBytes[row]!;
  condemn(context, extents.slice(start, end));
  const fresh = new ExtentList();
  return new Promise((resolve) => {
    fetcher.add([
      {
        layer: index,
        blobStart: blobStart[row]!,
        blobEnd: blobEnd[row]!,
        tarStart: start,
        tarEnd: end,
        onPart: (part) => {
          fresh.push(part.pack, part.offset, part.lengthBytes);
          if (fresh.lengthBytes === end - start) resolve([{ tarStart: start, tarEnd: end, extents: fresh }]);
        },
      },
    ]);
  });
}

async function rewriteInline({ context, layer, extents }: Repair, ranges: Float64Array): Promise<Patch[]> {
  if (ranges.length === 0) return [];
  const run = await writeInline(context, layer, ranges);
  const patches: Patch[] = [];
  let { offset } = run;
  for (let i = 0; i < ranges.length; i += 2) {
    const tarStart = ranges[i]!;
    const tarEnd = ranges[i + 1]!;
    condemn(context, extents.slice(tarStart, tarEnd));
    const fresh = new ExtentList();
    fresh.push(run.pack, offset, tarEnd - tarStart);
    offset += tarEnd - tarStart;
    patches.push({ tarStart, tarEnd, extents: fresh });
  }
  return patches;
}

/** No later look-up finds these bytes. */
function condemn(context: PullContext, extents: ExtentList): void {
  for (let i = 0; i < extents.count; i++) {
    markBad(context.paths, extents.packAt(i), extents.offsetAt(i), extents.lengthAt(i));
  }
}

function splice(extents: ExtentList, patches: readonly Patch[]): ExtentList {
  const mended = new ExtentList();
  let at = 0;
  for (const patch of patches.toSorted((a, b) => a.tarStart - b.tarStart)) {
    mended.append(extents.slice(at, patch.tarStart));
    mended.append(patch.extents);
    at = patch.tarEnd;
  }
  mended.append(extents.slice(at, extents.lengthBytes));
  return mended;
}

function mismatch(layer: ChunkedLayer, actual: Digest): PullError {
  return new PullError(
    'digest-mismatch',
    `the tar of layer ${layer.blob.digest} does not match its DiffID: expected ${layer.diffId}, got ${actual}`,
    {
      layer: layer.blob.digest,
      hint: 'the image was built or pushed wrongly: rebuild it, or pull another version',
    },
  );
}
