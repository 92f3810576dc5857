import { requireSpace } from '../files/disk-space.js';
import { lastAtMost } from '../format/arrays.js';
import type { Digest } from '../format/digest.js';
import { fromFailure, inLayer, PullError } from '../format/error.js';
import { type SelectedSpan, selectedSpans } from '../plan/selected-spans.js';
import type { FetchSpanResult, PartialLayer, TreeRows } from '../pool/messages.js';
import type { TaskRunner } from '../pool/worker-pool.js';
import { ExtentList } from '../store/extents.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PackId } from '../store/paths.js';
import { fetchThreads } from './budgets.js';
import { type ChunkedLayer, type FetchFigures, sumOfFetches } from './layer.js';
import type { PullContext } from './pull-context.js';
import type { PathSelection } from './pull-result.js';
import { lastBytesFor } from './span-fetch.js';
import { type PathLayers, upperLayers } from './upper-layers.js';

/** A file or directory of an image as a layer of its own in the store. */
export interface PickedPath extends Readonly<FetchFigures> {
  readonly diffId: Digest;
}

/**
 * Makes a layer of what is at a path. Headers of missing layers come from their tar-splits or TOCs;
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
): Promise<PickedPath | undefined> {
  const upper = await upperLayers(context, image, path);
  if (upper === undefined) return undefined;
  const { layers, chunked, costs } = upper;
  const tree = await context.stop.guard(context.support.run({ task: 'pick-tree', layers, path, asRoot }));
  const fetching = new PathContents(context, chunked, layers, tree);
  await context.stop.guard(fetching.run());
  const contents = contentsOf(tree, layers, fetching);
  const rows = contents.toRows();
  const picked = await context.stop.guard(
    context.support.run({ task: 'write-picked', tree, contents: rows }),
  );
  const extents = ExtentList.fromRows(picked.extents);
  for (const pack of picked.packs) context.packs.add(pack);
  await writeLayerRecord(context.paths, { diffId: picked.digest, extents });
  return { diffId: picked.digest, ...sumOfFetches([...costs, fetching.cost]) };
}

/** The extents of all files, in the order of their rows. */
function contentsOf(tree: TreeRows, layers: readonly PartialLayer[], fetched: PathContents): ExtentList {
  const contents = new ExtentList();
  const cached = layers.map(({ ranges, extents }) =>
    ranges === undefined ? ExtentList.fromRows(extents) : undefined,
  );
  for (let row = 0; row < tree.count; row++) {
    if (!hasContent(tree, row)) continue;
    const [layer, start, sizeBytes] = [tree.layer[row]!, tree.contentStart[row]!, tree.sizeBytes[row]!];
    const part =
      cached[layer]?.slice(start, start + sizeBytes) ??
      fetched.partOf(layers[layer]!.diffId, start, start + sizeBytes);
    if (part.lengthBytes !== sizeBytes)
      throw new PullError('internal', `row ${row} was not fetched completely`);
    contents.append(part);
  }
  return contents;
}

/** The type flag of a file, as a byte. */
const FILE = 0x30;

/** Compressed bytes that are decoded with one call. */
const PIECE_BYTES = 512 * 1024;

/** A part of a layer's tar, and where it was written. */
interface FetchedPart extends Pick<SelectedSpan, 'tarStart' | 'tarEnd'> {
  readonly pack: PackId;
  readonly packOffset: number;
}

/** The selected contents of all missing layers while they arrive. */
class PathContents {
  readonly cost: FetchFigures = { fetchedBytes: 0, requests: 0 };
  readonly #context: PullContext;
  readonly #layers: readonly ChunkedLayer[];
  /** By DiffID; in the order of the tar, once all have arrived. */
  readonly #fetched = new Map<Digest, FetchedPart[]>();
  /** The tar offset of each of them. */
  readonly #starts = new Map<Digest, readonly number[]>();
  readonly #waiting: Array<{ readonly layer: ChunkedLayer; readonly span: SelectedSpan }> = [];

  constructor(
    context: PullContext,
    chunked: ReadonlyMap<Digest, ChunkedLayer>,
    layers: readonly PartialLayer[],
    tree: TreeRows,
  ) {
    this.#context = context;
    this.#layers = [...chunked.values()];
    for (const [diffId, layer] of chunked) {
      const spans = selectedSpans(
        layer.metadata.table,
        selectedRows(layer, (row) => layers[row]!.diffId === diffId, tree),
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
    const metadata = sumOfFetches(this.#layers.map(({ cost }) => cost));
    context.emit({
      event: 'planned',
      totalBytes: fetchBytes + metadata.fetchedBytes,
      fetchBytes,
      reuseBytes: 0,
      resumeBytes: 0,
      requests: requests + metadata.requests,
    });
    if (requests === 0) return;
    await requireSpace(
      context.paths.root,
      sumOf(({ tarStart, tarEnd }) => tarEnd - tarStart),
      true,
    );
    const pool = await context.startFetchers(fetchThreads(context.settings.workers, fetchBytes, false), true);
    const fetchers = Math.min(requests, context.concurrency.limit);
    await Promise.all(Array.from({ length: fetchers }, () => this.#fetchNext(pool)));
    for (const [diffId, parts] of this.#fetched) {
      parts.sort((a, b) => a.tarStart - b.tarStart);
      this.#starts.set(
        diffId,
        parts.map(({ tarStart }) => tarStart),
      );
    }
  }

  /** The fetched extents of a part of a layer's tar. */
  partOf(diffId: Digest, start: number, end: number): ExtentList {
    const extents = new ExtentList();
    const parts = this.#fetched.get(diffId) ?? [];
    const starts = this.#starts.get(diffId) ?? [];
    for (let i = Math.max(0, lastAtMost(starts, starts.length, start)); i < parts.length; i++) {
      const { tarStart, tarEnd, pack, packOffset } = parts[i]!;
      if (tarStart >= end) break;
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
      const task = { blob, table: metadata.table, pieceBytes: PIECE_BYTES };
      const proof = { checkContents: true, reportLocations: true, ...lastBytesFor(span, metadata, 0) };
      retries.countRequests(1);
      try {
        const result = await pool.run({ task: 'fetch-span', ...task, ...proof, ...span });
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

  /**
   * Records the location of a span, or of each content where its tar offsets differ from the
   * headers'.
   */
  #note({ diffId, metadata }: ChunkedLayer, span: SelectedSpan, result: FetchSpanResult): void {
    const pack = result.pack;
    const parts = this.#fetched.get(diffId) ?? [];
    this.#fetched.set(diffId, parts);
    if (metadata.headers === undefined) parts.push({ ...span, pack, packOffset: result.packOffset });
    for (const { row, start, lengthBytes, packOffset } of result.locations ?? []) {
      const tarStart = metadata.headers!.ranges[row * 2 + 1]! + start;
      parts.push({ tarStart, tarEnd: tarStart + lengthBytes, pack, packOffset });
    }
  }
}

/** Whether a row is a file that is not empty. */
function hasContent({ type, sizeBytes }: TreeRows, row: number): boolean {
  return type[row] === FILE && sizeBytes[row]! > 0;
}

/** The offset of each content of the table, in the tar that has the headers. */
function contentStarts({ metadata: { table, headers } }: ChunkedLayer): Float64Array {
  return headers === undefined
    ? table.tarStart
    : Float64Array.from({ length: table.count }, (_, row) => headers.ranges[row * 2 + 1]!);
}

/** The rows of a layer's table whose contents a tree has, ascending, each once. */
function selectedRows(layer: ChunkedLayer, isOf: (layer: number) => boolean, tree: TreeRows): number[] {
  const { table } = layer.metadata;
  const starts = contentStarts(layer);
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
