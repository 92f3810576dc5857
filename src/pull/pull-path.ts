import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { PartialLayer, TreeRows } from '../pool/messages.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import { writeLayerRecord } from '../store/layer-record.js';
import type { PackId } from '../store/paths.js';
import type { PullContext } from './context.js';
import { type FetchFigures, sumOfFetches } from './layer.js';
import type { PathSelection } from './options.js';
import { hasContent, PathContents } from './path-contents.js';
import { type PathLayers, upperLayers } from './upper-layers.js';

/** A file or directory of an image as a layer of its own in the store. */
export interface PickedPath extends Readonly<FetchFigures> {
  readonly diffId: Digest;
}

/**
 * Makes a layer of what is at a path: headers of missing layers come from their tar-splits or TOCs, and of contents only those that are wanted are
 * fetched, and proven by the digests in the TOC. Layers that allow no parts are pulled whole, and those that the store has are hashed; what lies
 * below a layer that hides it from the path is not looked at.
 * @returns undefined where that would be a pull of the whole image
 * @throws PullError `path-not-found`; `metadata-malformed`, `unsupported` or `digest-mismatch` where the whole layers have to be pulled; as `fetchRange`
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
  const extents = ExtentList.fromRows(picked.extents as ExtentRows);
  for (const pack of picked.packs) context.packs.add(pack as PackId);
  await writeLayerRecord(context.paths, { diffId: picked.digest, extents });
  return { diffId: picked.digest, ...sumOfFetches([...costs, fetching.cost]) };
}

/** The contents of all files, in the order of their rows. */
function contentsOf(tree: TreeRows, layers: readonly PartialLayer[], fetched: PathContents): ExtentList {
  const contents = new ExtentList();
  const held = layers.map(({ ranges, extents }) =>
    ranges === undefined ? ExtentList.fromRows(extents as ExtentRows) : undefined,
  );
  for (let row = 0; row < tree.count; row++) {
    if (!hasContent(tree, row)) continue;
    const [layer, start, sizeBytes] = [tree.layer[row]!, tree.contentStart[row]!, tree.sizeBytes[row]!];
    const part =
      held[layer]?.slice(start, start + sizeBytes) ??
      fetched.partOf(layers[layer]!.diffId, start, start + sizeBytes);
    if (part.lengthBytes !== sizeBytes) throw new PullError('internal', `row ${row} was not fetched whole`);
    contents.append(part);
  }
  return contents;
}
