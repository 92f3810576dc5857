import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { FindDamageResult } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { PullContext } from './context.js';
import { type DamagedCopy, type DamagedRun, damagedParts } from './damaged-runs.js';
import type { Fetcher } from './fetcher.js';
import { type TarSplitPart, writeInline } from './inline.js';
import type { ChunkedLayer, KnownLayer } from './layer.js';
import { LayerProver } from './prover.js';
import type { SpanFetch } from './span-fetch.js';

interface Repair {
  readonly context: PullContext;
  readonly layer: ChunkedLayer;
  readonly extents: ExtentList;
  /** What the extents hash to instead of the DiffID; null when some are gone. */
  readonly actual: Digest | null;
  readonly spans: SpanFetch;
  readonly fetcher: Fetcher;
}

/** New bytes for a part of the tar. */
interface Patch {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly extents: ExtentList;
}

/**
 * A layer whose DiffID failed: bytes that came in this pull, were reused or resumed may be false. Contents are checked by digest
 * and the rest against tar-split; what is false is fetched or written anew, and the whole is proven again. A pack is marked only where
 * its bytes fail their own record: metadata that lies must not condemn what other layers are made of.
 * @returns the extents that prove true
 * @throws PullError `digest-mismatch` when nothing false is found or the second proof fails, and as fetching does
 */
export async function repairLayer(repair: Repair): Promise<ExtentList> {
  const { context, layer, extents, spans } = repair;
  const { table, tarSplit } = layer.metadata;
  const task = { task: 'find-damage', table, blob: layer.blob, extents: extents.toRows() } as const;
  const damage = await context.metadata.with(tarSplit?.uncompressedBytes ?? 0, () =>
    context.support.run(tarSplit === undefined ? task : { ...task, tarSplit }),
  );
  const isSound = damage.contents.length === 0 && damage.raw.length === 0;
  if (isSound || tarSplit === undefined) throw mismatch(layer, repair.actual);
  const isFresh = (start: number, end: number) =>
    extents.slice(start, end).packs.some((pack) => spans.wroteTo(pack));
  warn(repair, damage, isFresh);
  const { runs, copies } = damagedParts(table, damage, isFresh);
  const [inline, ...fetched] = await context.stop.guard(
    Promise.all([rewriteInline(repair, tarSplit, damage.raw), ...runs.map((run) => refetch(repair, run))]),
  );
  const copied = copies.map((copy) => copyOf(copy, fetched[copy.run]!));
  const mended = splice(extents, [...inline, ...fetched, ...copied]);
  const prover = new LayerProver(context, layer);
  prover.feed(mended);
  const actual = await prover.end(mended);
  if (actual !== layer.diffId) throw mismatch(layer, actual);
  return mended;
}

function warn(
  { context, layer }: Repair,
  { contents, raw }: FindDamageResult,
  isFresh: (start: number, end: number) => boolean,
): void {
  const { tarStart, sizeBytes } = layer.metadata.table;
  const fresh = contents.filter((row) => isFresh(tarStart[row]!, tarStart[row]! + sizeBytes[row]!)).length;
  const stored = contents.length - fresh + raw.length / 2;
  if (fresh > 0) {
    const [what, it] = fresh === 1 ? ['1 content', 'it'] : [`${fresh} contents`, 'them'];
    const message = `${what} of layer ${layer.blob.digest} came with another digest than the metadata states; fetching ${it} once more`;
    context.emit({ event: 'warning', message });
  }
  if (stored > 0) {
    const [what, they] = stored === 1 ? ['1 part', 'is'] : [`${stored} parts`, 'are'];
    const message = `${what} of layer ${layer.blob.digest} that the store had ${they} not what the metadata states, and ${they} replaced`;
    context.emit({ event: 'warning', message });
  }
}

/** Fetches a run of false contents anew, and has their digests computed. */
function refetch({ spans, fetcher }: Repair, run: DamagedRun): Promise<Patch> {
  const { blobStart, blobEnd, tarStart, tarEnd, isFresh } = run;
  const fresh = new ExtentList();
  return new Promise((resolve, reject) => {
    const job = spans.job({
      blobStart,
      blobEnd,
      tarStart,
      tarEnd,
      checkContents: isFresh ? 'again' : 'first',
      onPart: (part, last) => {
        fresh.push(part.pack, part.offset, part.lengthBytes);
        if (last) resolve({ tarStart, tarEnd, extents: fresh });
      },
      failed: reject,
    });
    fetcher.add([job]);
  });
}

/** The patch of a content that another patch, of a run, has. */
function copyOf({ tarStart, tarEnd, origin }: DamagedCopy, run: Patch): Patch {
  const start = origin - run.tarStart;
  return { tarStart, tarEnd, extents: run.extents.slice(start, start + tarEnd - tarStart) };
}

async function rewriteInline(
  { context, layer }: Repair,
  tarSplit: TarSplitPart,
  ranges: Float64Array,
): Promise<Patch[]> {
  if (ranges.length === 0) return [];
  const run = await writeInline(context, layer, tarSplit, ranges);
  const patches: Patch[] = [];
  let { offset } = run;
  for (let i = 0; i < ranges.length; i += 2) {
    const tarStart = ranges[i]!;
    const tarEnd = ranges[i + 1]!;
    const fresh = new ExtentList();
    fresh.push(run.pack, offset, tarEnd - tarStart);
    offset += tarEnd - tarStart;
    patches.push({ tarStart, tarEnd, extents: fresh });
  }
  return patches;
}

function splice(extents: ExtentList, patches: readonly Patch[]): ExtentList {
  const mended = new ExtentList();
  let at = 0;
  for (const patch of patches.toSorted((a, b) => a.tarStart - b.tarStart)) {
    if (patch.tarStart < at) continue; // it came with what is around it
    mended.append(extents.slice(at, patch.tarStart));
    mended.append(patch.extents);
    at = patch.tarEnd;
  }
  mended.append(extents.slice(at, extents.lengthBytes));
  return mended;
}

/** What a layer fails with whose bytes are all there and make another tar than the config states. */
export function mismatch(layer: KnownLayer, actual: Digest | null): PullError {
  return new PullError(
    'digest-mismatch',
    `the tar of layer ${layer.blob.digest} does not match its DiffID: expected ${layer.diffId}, got ${actual ?? 'bytes that are gone'}`,
    {
      layer: layer.blob.digest,
      hint: 'the image was built or pushed wrongly: rebuild it, or pull another version',
    },
  );
}
