import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type DamagedCopy, type DamagedRun, damagedParts } from '../plan/selected-spans.js';
import type {
  FindDamageResult,
  FollowedLayer,
  MetadataPartWithDigest,
  PackRun,
  VerifyLayerResult,
} from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import type { Fetcher } from './fetcher.js';
import type { ChunkedLayer, KnownLayer } from './layer.js';
import type { PullContext } from './pull-context.js';
import type { SpanFetch } from './span-fetch.js';

/**
 * The tar length of an opaque layer is unknown until its end. There are tags for this many times
 * its blob, and for at least 1 GiB; a follower gives up a longer tar.
 */
const USUAL_RATIO = 16;
const SMALL_TAR_BYTES = 2 ** 30;

/**
 * A layer that states to be larger is not followed: it hardly fits on a disk. Tags take 12 bytes a
 * MiB.
 */
const MAX_FOLLOWED_TAR_BYTES = 2 ** 40;

/**
 * Hashes one layer in a worker, behind its front: sends it extents as they arrive, in tar order.
 */
export class LayerProver {
  readonly #context: PullContext;
  readonly #diffId: Digest;
  readonly #followed: FollowedLayer | undefined = undefined;
  #port: MessagePort | undefined;
  #result: Promise<VerifyLayerResult> | undefined;

  constructor(context: PullContext, { diffId, metadata, blob }: KnownLayer) {
    this.#context = context;
    this.#diffId = diffId;
    const maxTarBytes = metadata?.table.tarBytes ?? Math.max(SMALL_TAR_BYTES, USUAL_RATIO * blob.sizeBytes);
    if (maxTarBytes <= MAX_FOLLOWED_TAR_BYTES) this.#followed = context.follower?.follow(diffId, maxTarBytes);
  }

  /** Adds the next bytes of the tar. */
  feed(extents: ExtentList): void {
    if (extents.count === 0) return;
    this.#open().postMessage(extents.toRows());
    this.#followed?.feed(extents.toRows());
  }

  /**
   * Returns the digest of all bytes, or null when a pack does not have all of them any more.
   * `extents` are all that was fed. If only zeros at the end are missing for the DiffID, appends
   * them to `extents` and returns the DiffID.
   */
  async end(extents: ExtentList): Promise<Digest | null> {
    const port = this.#open();
    port.postMessage(null);
    const { digest, isTagged, padding } = await this.#result!.finally(() => port.close());
    if (padding !== undefined) {
      const zeros = new ExtentList();
      zeros.push(padding.pack, padding.packOffset, padding.lengthBytes);
      extents.append(zeros);
      this.#context.packs.add(padding.pack);
      this.#followed?.feed(zeros.toRows());
    }
    this.#followed?.end(digest === this.#diffId && isTagged);
    return digest;
  }

  /** Ends the hash without its digest. */
  abandon(): void {
    this.#followed?.end(false);
    this.#port?.postMessage(null);
    this.#result?.catch(() => {}).then(() => this.#port?.close());
  }

  #open(): MessagePort {
    if (this.#port === undefined) {
      const { port1, port2 } = new MessageChannel();
      this.#port = port1;
      const task = { task: 'verify-layer', diffId: this.#diffId, port: port2 } as const;
      const tags = this.#followed?.tags;
      this.#result = this.#context.support.run(tags === undefined ? task : { ...task, tags }, [port2]);
      this.#result.catch(() => {}); // `end` throws it
    }
    return this.#port;
  }
}

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
      ...{ blobStart, blobEnd, tarStart, tarEnd },
      checkContents: isFresh ? 'again' : 'first',
      onPart: (part, last) => {
        fresh.push(part.pack, part.packOffset, part.lengthBytes);
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
  let { packOffset } = run;
  for (let i = 0; i < ranges.length; i += 2) {
    const [tarStart, tarEnd] = [ranges[i]!, ranges[i + 1]!];
    const extents = new ExtentList();
    extents.push(run.pack, packOffset, tarEnd - tarStart);
    packOffset += tarEnd - tarStart;
    patches.push({ tarStart, tarEnd, extents });
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

/**
 * Writes these tar ranges from tar-split (pairs [start, end)) to a pack, one after the other.
 * @throws PullError as fetching does
 */
export async function writeInline(
  context: PullContext,
  layer: ChunkedLayer,
  tarSplit: MetadataPartWithDigest,
  ranges: Float64Array,
): Promise<PackRun> {
  const task = { task: 'write-inline', blob: layer.blob, tarSplit, ranges } as const;
  const run = await context.metadata.with(tarSplit.uncompressedBytes, () => context.support.run(task));
  context.packs.add(run.pack);
  return run;
}
