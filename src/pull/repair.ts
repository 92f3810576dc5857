import { lastAtMost } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type LayerTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { findFirstOccurrences, type Span } from '../plan/plan.js';
import { REQUEST_BYTES } from '../plan/spans.js';
import type { FindDamageResult, MetadataPartWithDigest } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import { LayerProver, writeInline } from './assembly.js';
import type { Fetcher } from './fetcher.js';
import type { ChunkedLayer, KnownLayer } from './layer.js';
import type { PullContext } from './pull-context.js';
import type { SpanFetch } from './span-fetch.js';

interface Repair {
  readonly context: PullContext;
  readonly layer: ChunkedLayer;
  readonly extents: ExtentList;
  /** The digest of the extents, instead of the DiffID; null when some are missing. */
  readonly actual: Digest | null;
  readonly spans: SpanFetch;
  readonly fetcher: Fetcher;
}

/** New extents for a part of the tar. */
interface Patch {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly extents: ExtentList;
}

/**
 * Repairs a layer with a wrong DiffID, whose received, reused or resumed bytes may be wrong.
 * Verifies contents by their digests and other bytes against tar-split, fetches or writes wrong
 * ones again, and verifies the layer once more. Marks a pack corrupt only where bytes fail its own
 * index: wrong metadata must not invalidate bytes of other layers.
 * @returns the verified extents
 * @throws PullError `digest-mismatch` when nothing wrong is found or the DiffID is wrong again; as
 *   fetching does
 */
export async function repairLayer(repair: Repair): Promise<ExtentList> {
  const { context, layer, extents, spans } = repair;
  const { table, tarSplit } = layer.metadata;
  const task = { task: 'find-damage', table, blob: layer.blob, extents: extents.toRows() } as const;
  const damage = await context.metadata.with(tarSplit?.uncompressedBytes ?? 0, () =>
    context.support.run(tarSplit === undefined ? task : { ...task, tarSplit }),
  );
  const isSound = damage.contents.length === 0 && damage.tarRanges.length === 0;
  if (isSound || tarSplit === undefined) throw mismatch(layer, repair.actual);
  const isFresh = (start: number, end: number) =>
    extents.slice(start, end).packs.some((pack) => spans.wroteTo(pack));
  warn(repair, damage, isFresh);
  const { runs, copies } = damagedParts(table, damage, isFresh);
  const [inline, ...fetched] = await context.stop.guard(
    Promise.all([
      rewriteInline(repair, tarSplit, damage.tarRanges),
      ...runs.map((run) => refetch(repair, run)),
    ]),
  );
  const copied = copies.map((copy) => copyOf(copy, fetched[copy.run]!));
  const repaired = splice(extents, [...inline, ...fetched, ...copied]);
  const prover = new LayerProver(context, layer);
  prover.feed(repaired);
  const actual = await prover.end(repaired);
  if (actual !== layer.diffId) throw mismatch(layer, actual);
  return repaired;
}

function warn(
  { context, layer }: Repair,
  { contents, tarRanges }: FindDamageResult,
  isFresh: (start: number, end: number) => boolean,
): void {
  const { tarStart, sizeBytes } = layer.metadata.table;
  const fresh = contents.filter((row) => isFresh(tarStart[row]!, tarStart[row]! + sizeBytes[row]!)).length;
  const stored = contents.length - fresh + tarRanges.length / 2;
  if (fresh > 0) {
    const [what, it] = fresh === 1 ? ['1 content', 'it'] : [`${fresh} contents`, 'them'];
    const message = `${what} of layer ${layer.blob.digest} arrived with another digest than the metadata states; fetching ${it} again`;
    context.emit({ event: 'warning', message });
  }
  if (stored > 0) {
    const [what, they] = stored === 1 ? ['1 part', 'is'] : [`${stored} parts`, 'are'];
    const message = `${what} of layer ${layer.blob.digest} in the store ${they} not what the metadata states; replacing ${they === 'is' ? 'it' : 'them'}`;
    context.emit({ event: 'warning', message });
  }
}

/** Fetches a run of wrong contents again, and verifies each. */
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

/** The patch of a content that the patch of a run contains. */
function copyOf({ tarStart, tarEnd, origin }: DamagedCopy, run: Patch): Patch {
  const start = origin - run.tarStart;
  return { tarStart, tarEnd, extents: run.extents.slice(start, start + tarEnd - tarStart) };
}

async function rewriteInline(
  { context, layer }: Repair,
  tarSplit: MetadataPartWithDigest,
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
  const spliced = new ExtentList();
  let at = 0;
  for (const patch of patches.toSorted((a, b) => a.tarStart - b.tarStart)) {
    if (patch.tarStart < at) continue; // part of the previous patch
    spliced.append(extents.slice(at, patch.tarStart));
    spliced.append(patch.extents);
    at = patch.tarEnd;
  }
  spliced.append(extents.slice(at, extents.lengthBytes));
  return spliced;
}

/** The error of a layer with another tar than the config states. */
export function mismatch(layer: KnownLayer, actual: Digest | null): PullError {
  return new PullError(
    'digest-mismatch',
    `the tar of layer ${layer.blob.digest} does not match its DiffID: expected ${layer.diffId}, got ${actual ?? 'missing bytes'}`,
    {
      layer: layer.blob.digest,
      hint: 'the image was built or pushed incorrectly: rebuild it, or pull another version',
    },
  );
}

/** A wrong content, or a wrong chunk of one. */
interface Unit extends Omit<Span, 'layer'> {
  readonly content: number;
}

/** Wrong units near each other, which one request fetches with what is between them. */
interface DamagedRun {
  readonly blobStart: number;
  blobEnd: number;
  readonly tarStart: number;
  tarEnd: number;
  lastContent: number;
  /** Whether this pull received all of the wrong units; otherwise it received none of them. */
  readonly isFresh: boolean;
}

/**
 * A content that need not be fetched: row `run` of the runs has the same one, at tar offset
 * `origin`.
 */
interface DamagedCopy {
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly run: number;
  readonly origin: number;
}

interface DamagedParts {
  /** In tar order. */
  readonly runs: readonly DamagedRun[];
  readonly copies: readonly DamagedCopy[];
}

/**
 * What to fetch of a layer with these wrong contents, in requests no larger than spans unless a
 * content is. A content that the layer has several times, perhaps thousands, is fetched once. Gaps
 * between wrong units are fetched where they cost less than a request: metadata that is wrong in
 * every second file would otherwise decide how many requests there are. `isFresh`: whether this
 * pull received a range of the tar.
 */
export function damagedParts(
  table: LayerTable,
  damage: Pick<FindDamageResult, 'contents' | 'chunks'>,
  isFresh: (tarStart: number, tarEnd: number) => boolean,
): DamagedParts {
  const [firsts] = findFirstOccurrences([table]);
  const isFetched = new Uint8Array(table.count);
  const runs: DamagedRun[] = [];
  const copies: Omit<DamagedCopy, 'run'>[] = [];
  for (const { content, ...range } of unitsOf(table, damage)) {
    const { tarStart, tarEnd } = range;
    const first = firsts!.layer[content]! < 0 ? content : firsts!.row[content]!;
    if (tarEnd - tarStart === table.sizeBytes[content]) {
      if (first !== content && isFetched[first] === 1) {
        copies.push({ tarStart, tarEnd, origin: table.tarStart[first]! });
        continue;
      }
      isFetched[content] = 1;
    }
    const run = runs.at(-1);
    const fresh = isFresh(tarStart, tarEnd);
    if (run !== undefined && run.isFresh === fresh && mayJoin(table, run, { content, ...range })) {
      run.blobEnd = range.blobEnd;
      run.tarEnd = tarEnd;
      run.lastContent = content;
    } else runs.push({ ...range, lastContent: content, isFresh: fresh });
  }
  const starts = runs.map(({ tarStart }) => tarStart);
  const runOf = (origin: number) => lastAtMost(starts, starts.length, origin);
  return { runs, copies: copies.map((copy) => ({ ...copy, run: runOf(copy.origin) })) };
}

function* unitsOf(
  table: LayerTable,
  damage: Pick<FindDamageResult, 'contents' | 'chunks'>,
): Generator<Unit, void, undefined> {
  const { blobStart, blobEnd, tarStart, sizeBytes, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  let next = 0;
  for (const content of damage.contents) {
    const full = {
      content,
      blobStart: blobStart[content]!,
      blobEnd: blobEnd[content]!,
      tarStart: tarStart[content]!,
      tarEnd: tarStart[content]! + sizeBytes[content]!,
    };
    const chunks: Unit[] = [];
    for (; next < damage.chunks.length && damage.chunks[next]! < chunkFirst[content + 1]!; next++) {
      const chunk = damage.chunks[next]!;
      const isLast = chunk + 1 === chunkFirst[content + 1]!;
      chunks.push({
        content,
        blobStart: chunkBlobStart[chunk]!,
        blobEnd: isLast ? full.blobEnd : chunkBlobStart[chunk + 1]!,
        tarStart: chunkTarStart[chunk]!,
        tarEnd: isLast ? full.tarEnd : chunkTarStart[chunk + 1]!,
      });
    }
    // A chunk without bytes in the blob cannot be requested.
    if (chunks.length > 0 && chunks.every(({ blobStart, blobEnd }) => blobStart < blobEnd)) yield* chunks;
    else yield full;
  }
}

/**
 * Whether the gap between a run and a unit is small enough, and both together are no larger than a
 * span.
 */
function mayJoin(table: LayerTable, run: DamagedRun, unit: Unit): boolean {
  return (
    unit.blobStart - run.blobEnd <= REQUEST_BYTES &&
    unit.blobEnd - run.blobStart <= SPAN_BLOB_BYTES &&
    unit.tarEnd - run.tarStart <= SPAN_TAR_BYTES &&
    !hasHole(table, run.lastContent, unit.content)
  );
}

/**
 * Whether the tar has bytes between two contents that the blob lacks: a range over them decodes to
 * less.
 */
function hasHole({ blobStart, blobEnd, tarStart, sizeBytes }: LayerTable, from: number, to: number): boolean {
  for (let row = from; row < to; row++) {
    const isInTar = tarStart[row + 1]! > tarStart[row]! + sizeBytes[row]!;
    if (isInTar && blobStart[row + 1] === blobEnd[row]) return true;
  }
  return false;
}
