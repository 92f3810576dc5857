import { requireSpace } from '../files/disk-space.js';
import { countBefore, lastAtMost } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer, PullError } from '../format/error.js';
import { gapsOf, type SelectedSpan, selectedSpans } from '../plan/selected-spans.js';
import type { FetchSpanResult, PackRun, PartialLayer, TreeRows } from '../pool/messages.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import { ExtentList } from '../store/extents.js';
import { readLayerRecord, writeLayerRecord } from '../store/layer-record.js';
import { fetchThreads } from './budgets.js';
import {
  type ChunkedLayer,
  type FetchFigures,
  isChunked,
  type KnownLayer,
  type MissingLayer,
  sumOfFetches,
} from './layer.js';
import { readLayers } from './prepare-layers.js';
import { writeInline } from './prove-layer.js';
import type { PullContext } from './pull-context.js';
import type { PathSelection } from './pull-result.js';
import { lastBytesFor } from './span-fetch.js';

/** The layers of an image. */
interface PathLayers {
  /** All of them, lowest first. */
  readonly order: readonly Digest[];
  /** Lists those that the store does not have now. */
  readonly missing: () => Promise<readonly MissingLayer[]>;
  /** Pulls the missing ones among these layers in full. */
  readonly pullInFull: (diffIds: ReadonlySet<Digest>) => Promise<FetchFigures>;
}

/**
 * Makes a layer of its own, in the store, of what is at a path of an image. Headers of missing layers come from their tar-splits or TOCs;
 * only the selected contents are fetched, and verified by the digests in the TOC. Layers that allow
 * no parts are pulled in full, cached layers are hashed, and layers hidden by a higher one are not
 * read.
 * @returns undefined where that would be a pull of the full image
 * @throws PullError `path-not-found`; `metadata-malformed`, `unsupported` or `digest-mismatch`
 *   where full layers have to be pulled; as `fetchRange`
 */
export async function pickPath(
  context: PullContext,
  image: PathLayers,
  { path, asRoot }: PathSelection,
): Promise<({ readonly diffId: Digest } & FetchFigures) | undefined> {
  const { stop, support, packs, paths, stages } = context;
  const upper = await upperLayers(context, image, path);
  if (upper === undefined) return undefined;
  const { layers, chunked, costs } = upper;
  const tree = await stop.guard(support.run({ task: 'pick-tree', layers, path, asRoot }));
  const fetching = new PathContents(context, chunked, layers, tree);
  await stop.guard(fetching.run());
  const contents = fetching.extents().toRows();
  const picked = await stop.guard(support.run({ task: 'write-picked', tree, contents }));
  for (const pack of picked.packs) packs.add(pack);
  const record = { diffId: picked.digest, extents: ExtentList.fromRows(picked.extents) };
  await stages.clock.during('sync', 'wait', () => writeLayerRecord(paths, record));
  return { diffId: picked.digest, ...sumOfFetches([...costs, fetching.cost]) };
}

/**
 * Reads layers from the highest down, until one hides the path from those below it. Returns those
 * that may have something there, lowest first, and of which only parts are fetched (`chunked`);
 * undefined where that would be a pull of the full image.
 */
async function upperLayers(context: PullContext, { order, missing, pullInFull }: PathLayers, path: string) {
  const steps = Buffer.from(path).toString('latin1').split('/');
  const names = steps.filter((name) => name !== '' && name !== '.');
  const chunked = new Map<Digest, ChunkedLayer>();
  const costs: FetchFigures[] = [];
  let layers: PartialLayer[] = [];
  let isClear = names.length > 0 && !names.includes('..');
  let fullBytes = 0;
  for (let end = order.length; end > 0; ) {
    const unread = (await missing()).filter(({ diffId }) => !chunked.has(diffId));
    const byDiffId = new Map(unread.map((layer) => [layer.diffId, layer]));
    const sizes = order.map((diffId) => fullPullBytes(byDiffId.get(diffId)));
    const start = isClear ? startOfNext(sizes, end, fullBytes) : 0;
    const next = order.slice(start, end);
    const inParts = unread.filter((layer) => next.includes(layer.diffId) && allowsParts(layer));
    if (start === 0 && chunked.size + inParts.length === 0) return undefined;
    const inFull = next.filter((_, i) => sizes[start + i]! > 0);
    if (inFull.length > 0) costs.push(await pullInFull(new Set(inFull)));
    fullBytes += inFull.reduce((sum, diffId) => sum + fullPullBytes(byDiffId.get(diffId)), 0);
    const read = () => readLayers(context, inParts, true);
    for (const layer of await context.stages.clock.within('metadata', read)) {
      chunked.set(layer.diffId, requireParts(layer));
      costs.push(layer.cost);
    }
    const parts = await context.stop.guard(
      Promise.all(next.map((diffId) => partialLayer(context, diffId, chunked.get(diffId)))),
    );
    layers = [...parts, ...layers];
    end = start;
    if (!isClear || end === 0) continue;
    const found = await context.stop.guard(context.support.run({ task: 'find-cover', layers: parts, names }));
    if (found.cover >= 0) return { layers: layers.slice(found.cover), chunked, costs };
    isClear = found.isClear;
  }
  return { layers, chunked, costs };
}

/** Whether parts of a layer can be verified alone: annotations state the digest of its TOC. */
function allowsParts({ location }: MissingLayer): boolean {
  return location?.by === 'annotations' || (location !== undefined && location.compression === 'gzip');
}

/** Bytes to fetch for a missing layer that allows no parts, 0 for any other. */
function fullPullBytes(layer: MissingLayer | undefined): number {
  return layer === undefined || allowsParts(layer) ? 0 : Math.max(1, layer.blob.sizeBytes);
}

/**
 * The first of the layers below `end` to read next: at least one, and as many as cost no more
 * together than what was pulled in full before. So layers that turn out to be hidden cost no more
 * than those that were needed, and several are still pulled at the same time.
 */
function startOfNext(sizes: readonly number[], end: number, pulledBytes: number): number {
  let start = end - 1;
  let sum = sizes[start]!;
  while (start > 0 && (sizes[start - 1] === 0 || sum + sizes[start - 1]! <= pulledBytes)) {
    start -= 1;
    sum += sizes[start]!;
  }
  return start;
}

/** @throws PullError where parts of a layer cannot be verified */
function requireParts(layer: KnownLayer): ChunkedLayer {
  if (isChunked(layer)) {
    const { location, metadata } = layer;
    const isStargz = metadata.format === 'estargz';
    // The footer of an eStargz layer can lead to another format, with metadata whose digest nothing
    // states.
    const stated =
      location?.by === 'footer' && location.compression === 'gzip' ? location.otherwise : location;
    if ((isStargz || stated?.by === 'annotations') && (metadata.tarSplit ?? metadata.headers) !== undefined)
      return layer;
  }
  throw layer.failedBefore ?? new PullError('unsupported', `layer ${layer.blob.digest} allows no parts`);
}

/** The headers of a chunked layer, or all of a layer that was pulled before, verified again. */
async function partialLayer(
  context: PullContext,
  diffId: Digest,
  layer: ChunkedLayer | undefined,
): Promise<PartialLayer> {
  if (layer === undefined) return cachedLayer(context, diffId);
  const { table, tarSplit, headers } = layer.metadata;
  if (headers !== undefined) {
    for (const pack of headers.extents.packs) context.packs.add(pack);
    return { diffId, ...headers };
  }
  const ranges = gapsOf(table);
  const extents = new ExtentList();
  const { pack, packOffset, lengthBytes } = await writeInline(context, layer, tarSplit!, ranges);
  extents.push(pack, packOffset, lengthBytes);
  return { diffId, tarBytes: table.tarBytes, extents: extents.toRows(), ranges };
}

async function cachedLayer({ paths, support }: PullContext, diffId: Digest): Promise<PartialLayer> {
  const list = readLayerRecord(paths, diffId)?.extents;
  if (list !== undefined) {
    const extents = list.toRows();
    const { isIntact } = await support.run({ task: 'check-layer', diffId, extents });
    if (isIntact) return { diffId, tarBytes: list.lengthBytes, extents };
  }
  throw new PullError('digest-mismatch', `layer ${diffId} is damaged in the store ${paths.root}`);
}

/** Compressed bytes that are decoded with one call. */
const PIECE_BYTES = 512 * 1024;

/** A part of a layer's tar, and where it was written. */
type FetchedPart = Pick<SelectedSpan, 'tarStart' | 'tarEnd'> & Pick<PackRun, 'pack' | 'packOffset'>;

/** The selected contents of all layers; fetches those of the missing ones. */
class PathContents {
  readonly cost: FetchFigures = { fetchedBytes: 0, requests: 0 };
  readonly #context: PullContext;
  readonly #chunked: ReadonlyMap<Digest, ChunkedLayer>;
  readonly #layers: readonly PartialLayer[];
  readonly #tree: TreeRows;
  /** By DiffID; in the order of the tar, once all have arrived. */
  readonly #fetched = new Map<Digest, FetchedPart[]>();
  readonly #waiting: Array<{ readonly layer: ChunkedLayer; readonly span: SelectedSpan }> = [];

  constructor(
    context: PullContext,
    chunked: ReadonlyMap<Digest, ChunkedLayer>,
    layers: readonly PartialLayer[],
    tree: TreeRows,
  ) {
    this.#context = context;
    this.#chunked = chunked;
    this.#layers = layers;
    this.#tree = tree;
    for (const [diffId, layer] of chunked) {
      this.#fetched.set(diffId, []);
      const rows = selectedRows(layer, (row) => layers[row]!.diffId === diffId, tree);
      for (const span of selectedSpans(layer.metadata.table, rows)) this.#waiting.push({ layer, span });
    }
  }

  async run(): Promise<void> {
    const { emit, paths, settings, concurrency, startFetchers } = this.#context;
    const sumOf = (size: (span: SelectedSpan) => number) =>
      this.#waiting.reduce((sum, { span }) => sum + size(span), 0);
    const fetchBytes = sumOf(({ blobStart, blobEnd }) => blobEnd - blobStart);
    const requests = this.#waiting.length;
    const metadata = sumOfFetches(Array.from(this.#chunked.values(), ({ cost }) => cost));
    emit({
      event: 'planned',
      totalBytes: fetchBytes + metadata.fetchedBytes,
      fetchBytes,
      reuseBytes: 0,
      resumeBytes: 0,
      requests: requests + metadata.requests,
    });
    if (requests === 0) return;
    const tarBytes = sumOf(({ tarStart, tarEnd }) => tarEnd - tarStart);
    await requireSpace(paths.root, tarBytes, true);
    const pool = await startFetchers(fetchThreads(settings.workers, fetchBytes, false), true);
    const fetchers = Math.min(requests, concurrency.limit);
    await Promise.all(Array.from({ length: fetchers }, () => this.#fetchNext(pool)));
    for (const parts of this.#fetched.values()) parts.sort((a, b) => a.tarStart - b.tarStart);
  }

  /** The extents of all files, in the order of their rows. */
  extents(): ExtentList {
    const { count, layer, contentStart, sizeBytes } = this.#tree;
    const all = new ExtentList();
    const cached = this.#layers.map(({ ranges, extents }) =>
      ranges === undefined ? ExtentList.fromRows(extents) : undefined,
    );
    for (let row = 0; row < count; row++) {
      if (!hasContent(this.#tree, row)) continue;
      const [start, end] = [contentStart[row]!, contentStart[row]! + sizeBytes[row]!];
      const { diffId } = this.#layers[layer[row]!]!;
      const part = cached[layer[row]!]?.slice(start, end) ?? this.#fetchedPart(diffId, start, end);
      if (part.lengthBytes !== sizeBytes[row]!)
        throw new PullError('internal', `row ${row} was not fetched completely`);
      all.append(part);
    }
    return all;
  }

  #fetchedPart(diffId: Digest, start: number, end: number): ExtentList {
    const extents = new ExtentList();
    const parts = this.#fetched.get(diffId) ?? [];
    const first = countBefore(parts, ({ tarStart }) => tarStart <= start) - 1;
    for (let i = Math.max(0, first); i < parts.length && parts[i]!.tarStart < end; i++) {
      const { tarStart, tarEnd, pack, packOffset } = parts[i]!;
      const [from, to] = [Math.max(start, tarStart), Math.min(end, tarEnd)];
      if (from < to) extents.push(pack, packOffset + from - tarStart, to - from);
    }
    return extents;
  }

  async #fetchNext(pool: TaskRunner): Promise<void> {
    const { retries, packs } = this.#context;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { layer, span } = next;
      const { blob, metadata } = layer;
      const task = { task: 'fetch-span', blob, table: metadata.table, pieceBytes: PIECE_BYTES } as const;
      const proof = { checkContents: true, reportLocations: true, ...lastBytesFor(span, metadata, 0) };
      retries.countRequests(1);
      try {
        const result = await pool.run({ ...task, ...proof, ...span });
        const { failure, wrong } = result;
        this.cost.fetchedBytes += result.fetchedBytes;
        this.cost.requests += result.requests;
        packs.add(result.pack);
        if (failure !== undefined) throw fromFailure(failure);
        if (wrong !== undefined) throw new PullError('digest-mismatch', 'its bytes are not those of its TOC');
        this.#note(layer, span, result);
      } catch (error) {
        throw inLayer(error, blob.digest);
      } finally {
        retries.countRequests(-1);
      }
    }
  }

  /** Records where a span is, or each content where tar offsets differ from the headers'. */
  #note({ diffId, metadata: { headers } }: ChunkedLayer, span: SelectedSpan, result: FetchSpanResult): void {
    const { pack, locations = [] } = result;
    const parts = this.#fetched.get(diffId)!;
    if (headers === undefined) parts.push({ ...span, pack, packOffset: result.packOffset });
    for (const { row, start, lengthBytes, packOffset } of locations) {
      const tarStart = headers!.ranges[row * 2 + 1]! + start;
      parts.push({ tarStart, tarEnd: tarStart + lengthBytes, pack, packOffset });
    }
  }
}

/** The type flag of a file, as a byte. */
const FILE = 0x30;

/** Whether a row is a file that is not empty. */
function hasContent({ type, sizeBytes }: TreeRows, row: number): boolean {
  return type[row] === FILE && sizeBytes[row]! > 0;
}

/** The rows of a layer's table whose contents a tree has, ascending, each once. */
function selectedRows(layer: ChunkedLayer, isOf: (layer: number) => boolean, tree: TreeRows): number[] {
  const { table, headers } = layer.metadata;
  // In the tar that has the headers.
  const starts =
    headers === undefined ? table.tarStart : table.tarStart.map((_, row) => headers.ranges[row * 2 + 1]!);
  const rows = new Set<number>();
  for (let row = 0; row < tree.count; row++) {
    if (!hasContent(tree, row) || !isOf(tree.layer[row]!)) continue;
    const content = lastAtMost(starts, table.count, tree.contentStart[row]!);
    const isFound = starts[content] === tree.contentStart[row];
    if (!isFound || table.sizeBytes[content] !== tree.sizeBytes[row]) {
      throw new PullError('unsupported', 'a file of the tar is not one of its table of contents');
    }
    rows.add(content);
  }
  return [...rows].sort((a, b) => a - b);
}
