import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer, PullError } from '../format/error.js';
import { lastAtMost } from '../format/search.js';
import { gapsOf, type SelectedSpan, selectedSpans } from '../plan/selected-spans.js';
import type { PartialLayer, TreeRows } from '../pool/messages.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { requireSpace } from '../store/disk-space.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import { readLayerRecord, writeLayerRecord } from '../store/layer-record.js';
import type { PackId } from '../store/paths.js';
import type { PullContext } from './context.js';
import { writeInline } from './inline.js';
import { type ChunkedLayer, type FetchFigures, isChunked, sumOfFetches, type WantedLayer } from './layer.js';
import type { PathSelection } from './options.js';
import { readLayers } from './read-layers.js';
import { fetchThreads } from './thread-counts.js';

/** The type flag of a file, as a byte. */
const FILE = 0x30;

/** Compressed bytes that are decoded with one call. */
const PIECE_BYTES = 512 * 1024;

/** A file or directory of an image as a layer of its own in the store. */
export interface PickedPath extends Readonly<FetchFigures> {
  readonly diffId: Digest;
}

/** Whether parts of a layer can be proven without the rest: annotations state the digest of its TOC, and that its tar-split. */
export function allowsParts({ place }: WantedLayer): boolean {
  return place?.by === 'annotations' && place.tarSplit !== undefined;
}

/**
 * Makes a layer of what is at a path: the headers of missing layers come from their tar-splits, and of contents only those that are wanted are
 * fetched, and proven by the digests in the TOC. Layers that the store has are hashed.
 * @param order the image's layers, lowest first
 * @throws PullError `path-not-found`; `metadata-malformed`, `unsupported` or `digest-mismatch` where the whole layers have to be pulled; as `fetchRange`
 */
export async function pickPath(
  context: PullContext,
  order: readonly Digest[],
  missing: readonly WantedLayer[],
  { path, asRoot }: PathSelection,
): Promise<PickedPath> {
  const known = await readLayers(context, missing);
  const chunked = new Map(known.map((layer) => [layer.diffId, requireSplit(layer)]));
  const layers = await context.stop.guard(
    Promise.all(order.map((diffId) => partialLayer(context, diffId, chunked.get(diffId)))),
  );
  const tree = await context.stop.guard(context.support.run({ task: 'pick-tree', layers, path, asRoot }));
  const fetching = new ContentFetch(context, chunked, order, tree);
  await context.stop.guard(fetching.run());
  const contents = contentsOf(tree, order, layers, fetching);
  const rows = contents.toRows();
  const picked = await context.stop.guard(
    context.support.run({ task: 'write-picked', tree, contents: rows }),
  );
  const extents = ExtentList.fromRows(picked.extents as ExtentRows);
  for (const pack of picked.packs) context.packs.add(pack as PackId);
  await writeLayerRecord(context.paths, { diffId: picked.digest, extents });
  return { diffId: picked.digest, ...sumOfFetches([...known.map(({ cost }) => cost), fetching.cost]) };
}

function requireSplit(layer: Parameters<typeof isChunked>[0]): ChunkedLayer {
  if (isChunked(layer) && layer.metadata.tarSplit !== undefined) return layer;
  throw layer.failedBefore ?? new PullError('unsupported', `layer ${layer.blob.digest} has no tar-split`);
}

/** The part of a layer that the store has: all of a layer that was pulled before, which is hashed first, else the headers. */
async function partialLayer(
  context: PullContext,
  diffId: Digest,
  layer: ChunkedLayer | undefined,
): Promise<PartialLayer> {
  if (layer === undefined) return cachedLayer(context, diffId);
  const { table, tarSplit } = layer.metadata;
  const ranges = gapsOf(table);
  const extents = new ExtentList();
  const { pack, offset, lengthBytes } = await writeInline(context, layer, tarSplit!, ranges);
  extents.push(pack, offset, lengthBytes);
  return { diffId, tarBytes: table.tarBytes, extents: extents.toRows(), ranges };
}

async function cachedLayer({ paths, support }: PullContext, diffId: Digest): Promise<PartialLayer> {
  const extents = readLayerRecord(paths, diffId)?.extents;
  const rows = extents?.toRows();
  const isWhole =
    rows !== undefined && (await support.run({ task: 'check-layer', diffId, extents: rows })).whole;
  if (extents === undefined || rows === undefined || !isWhole) {
    throw new PullError('digest-mismatch', `layer ${diffId} is damaged in the store ${paths.root}`);
  }
  return { diffId, tarBytes: extents.lengthBytes, extents: rows };
}

/** Where a span was written. */
interface FetchedSpan extends SelectedSpan {
  readonly pack: PackId;
  readonly packOffset: number;
}

/** The wanted contents of all missing layers while they come. */
class ContentFetch {
  readonly cost: FetchFigures = { fetchedBytes: 0, requests: 0 };
  readonly #context: PullContext;
  /** By DiffID, in the order of the tar. */
  readonly #fetched = new Map<Digest, FetchedSpan[]>();
  readonly #waiting: Array<{ readonly layer: ChunkedLayer; readonly span: SelectedSpan }> = [];

  constructor(
    context: PullContext,
    chunked: ReadonlyMap<Digest, ChunkedLayer>,
    order: readonly Digest[],
    tree: TreeRows,
  ) {
    this.#context = context;
    for (const [diffId, layer] of chunked) {
      const spans = selectedSpans(
        layer.metadata.table,
        wantedRows(layer, (row) => order[row] === diffId, tree),
      );
      for (const span of spans) this.#waiting.push({ layer, span });
    }
  }

  async run(): Promise<void> {
    const context = this.#context;
    const sumOf = (size: (span: SelectedSpan) => number) =>
      this.#waiting.reduce((sum, { span }) => sum + size(span), 0);
    const fetchBytes = sumOf(({ blobStart, blobEnd }) => blobEnd - blobStart);
    const requests = this.#waiting.length;
    context.emit({
      event: 'planned',
      totalBytes: fetchBytes,
      fetchBytes,
      reuseBytes: 0,
      resumeBytes: 0,
      requests,
    });
    if (requests === 0) return;
    await requireSpace(
      context.paths.root,
      sumOf(({ tarStart, tarEnd }) => tarEnd - tarStart),
      true,
    );
    const pool = await context.startFetchers(fetchThreads(context.settings.workers, fetchBytes, false));
    const askers = Math.min(requests, context.concurrency.limit);
    await Promise.all(Array.from({ length: askers }, () => this.#fetchNext(pool)));
  }

  /** What the packs have of a part of a layer's tar. */
  partOf(diffId: Digest, start: number, end: number): ExtentList {
    const extents = new ExtentList();
    for (const { tarStart, tarEnd, pack, packOffset } of this.#fetched.get(diffId) ?? []) {
      const [from, to] = [Math.max(start, tarStart), Math.min(end, tarEnd)];
      if (from < to) extents.push(pack, packOffset + from - tarStart, to - from);
    }
    return extents;
  }

  async #fetchNext(pool: WorkerPool): Promise<void> {
    const { patience, packs } = this.#context;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { layer, span } = next;
      const { blob, metadata } = layer;
      const task = { sequence: 0, blob, table: metadata.table, pieceBytes: PIECE_BYTES, checkContents: true };
      patience.asking(1);
      try {
        const result = await pool.run({ task: 'fetch-span', ...task, ...span });
        const { pack, packOffset, failure, wrong } = result;
        this.cost.fetchedBytes += result.fetchedBytes;
        this.cost.requests += result.requests;
        packs.add(pack as PackId);
        if (failure !== undefined) throw fromFailure(failure);
        if (wrong !== undefined) throw new PullError('digest-mismatch', 'its bytes are not those of its TOC');
        const spans = this.#fetched.get(layer.diffId) ?? [];
        spans.push({ ...span, pack: pack as PackId, packOffset });
        this.#fetched.set(
          layer.diffId,
          spans.sort((a, b) => a.tarStart - b.tarStart),
        );
      } catch (error) {
        throw inLayer(error, blob.digest);
      } finally {
        patience.asking(-1);
      }
    }
  }
}

/** The rows of a layer's table that a tree has contents of, ascending, each once. */
function wantedRows({ metadata }: ChunkedLayer, isOf: (layer: number) => boolean, tree: TreeRows): number[] {
  const { table } = metadata;
  const rows = new Set<number>();
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0 || !isOf(tree.layer[row]!)) continue;
    const content = lastAtMost(table.tarStart, table.count, tree.contentStart[row]!);
    const isThere = table.tarStart[content] === tree.contentStart[row];
    if (!isThere || table.sizeBytes[content] !== tree.sizeBytes[row]) {
      throw new PullError('unsupported', 'a file of the tar is not one of its table of contents');
    }
    rows.add(content);
  }
  return [...rows].sort((a, b) => a - b);
}

/** The contents of all files, in the order of their rows. */
function contentsOf(
  tree: TreeRows,
  order: readonly Digest[],
  layers: readonly PartialLayer[],
  fetched: ContentFetch,
): ExtentList {
  const contents = new ExtentList();
  const held = layers.map(({ ranges, extents }) =>
    ranges === undefined ? ExtentList.fromRows(extents as ExtentRows) : undefined,
  );
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0) continue;
    const [layer, start, sizeBytes] = [tree.layer[row]!, tree.contentStart[row]!, tree.sizeBytes[row]!];
    const part =
      held[layer]?.slice(start, start + sizeBytes) ?? fetched.partOf(order[layer]!, start, start + sizeBytes);
    if (part.lengthBytes !== sizeBytes) throw new PullError('internal', `row ${row} was not fetched whole`);
    contents.append(part);
  }
  return contents;
}
