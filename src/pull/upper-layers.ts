import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { gapsOf } from '../plan/selected-spans.js';
import type { PartialLayer } from '../pool/messages.js';
import { ExtentList } from '../store/extents.js';
import { readLayerRecord } from '../store/layer-record.js';
import {
  type ChunkedLayer,
  type FetchFigures,
  isChunked,
  type KnownLayer,
  type MissingLayer,
} from './layer.js';
import { readLayers } from './prepare-layers.js';
import { writeInline } from './prove-layer.js';
import type { PullContext } from './pull-context.js';

/** The layers of an image, as `upperLayers` needs them. */
export interface PathLayers {
  /** All of them, lowest first. */
  readonly order: readonly Digest[];
  /** Lists those that the store does not have now. */
  readonly missing: () => Promise<readonly MissingLayer[]>;
  /** Pulls the missing ones among these layers in full. */
  readonly pullInFull: (diffIds: ReadonlySet<Digest>) => Promise<FetchFigures>;
}

/** The layers that may have something at a path, lowest first. */
interface UpperLayers {
  readonly layers: readonly PartialLayer[];
  /** Layers of which only parts are fetched. */
  readonly chunked: ReadonlyMap<Digest, ChunkedLayer>;
  readonly costs: readonly FetchFigures[];
}

/**
 * Reads layers from the highest down, until one hides the path from those below it.
 * @returns undefined where that would be a pull of the full image
 * @throws PullError as `readLayers` and `PathLayers.pullInFull`; `unsupported` where parts of a
 *   layer cannot be verified
 */
export async function upperLayers(
  context: PullContext,
  { order, missing, pullInFull }: PathLayers,
  path: string,
): Promise<UpperLayers | undefined> {
  const names = Buffer.from(path)
    .toString('latin1')
    .split('/')
    .filter((name) => name !== '' && name !== '.');
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
    for (const layer of await readLayers(context, inParts, true)) {
      chunked.set(layer.diffId, requireParts(layer));
      costs.push(layer.cost);
    }
    const read = await context.stop.guard(
      Promise.all(next.map((diffId) => partialLayer(context, diffId, chunked.get(diffId)))),
    );
    layers = [...read, ...layers];
    end = start;
    if (!isClear || end === 0) continue;
    const found = await context.stop.guard(context.support.run({ task: 'find-cover', layers: read, names }));
    if (found.cover >= 0) return { layers: layers.slice(found.cover), chunked, costs };
    isClear = found.isClear;
  }
  return { layers, chunked, costs };
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

/**
 * The stored part of a layer: all of a layer that was pulled before, verified again, or the
 * headers.
 */
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
  const extents = readLayerRecord(paths, diffId)?.extents;
  const rows = extents?.toRows();
  const isComplete =
    rows !== undefined && (await support.run({ task: 'check-layer', diffId, extents: rows })).isIntact;
  if (extents === undefined || rows === undefined || !isComplete) {
    throw new PullError('digest-mismatch', `layer ${diffId} is damaged in the store ${paths.root}`);
  }
  return { diffId, tarBytes: extents.lengthBytes, extents: rows };
}

/** Whether parts of a layer can be verified alone: annotations state the digest of its TOC. */
function allowsParts({ location }: MissingLayer): boolean {
  return location?.by === 'annotations' || (location !== undefined && location.compression === 'gzip');
}
