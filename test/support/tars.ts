import { truncateSync } from 'node:fs';
import type { ExportEvent, ExportOptions } from '../../src/export/export-run.js';
import type { Digest } from '../../src/format/digest.js';
import type { TarSource } from '../../src/format/tar-entries.js';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { ExtentList } from '../../src/store/extents.js';
import { writeLayerRecord } from '../../src/store/layer-record.js';
import { packPath, type StorePaths } from '../../src/store/paths.js';
import { digestOf, writePack } from '../unit/store/support.js';

/** Eight TiB, more than any test machine has free. */
export const ENDLESS_BYTES = 2 ** 43;
const HOLE_BYTES = 2 ** 36;

/** An entry of a layer; omitted fields are those of an ordinary file of root. */
export type Entry = Partial<Omit<TarItem, 'name' | 'sizeBytes'>> & {
  readonly name: string | Buffer;
  readonly content?: string | Buffer;
};

/** The tar of these entries. */
export function tarOf(...entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap(({ content = '', ...item }) => {
    const bytes = Buffer.from(content);
    const defaults = { type: '0', mode: item.type === '5' ? 0o755 : 0o644, uid: 0, gid: 0 } as const;
    const times = { mtimeSeconds: 1_700_000_000, mtimeNanos: 0 };
    return [
      tarHeader({ ...defaults, ...times, ...item, sizeBytes: bytes.length }),
      bytes,
      tarPadding(bytes.length),
    ];
  });
  return Buffer.concat([...parts, TAR_END]);
}

/** Wraps a tar in memory as a random-access source. */
export function sourceOf(tar: Buffer): TarSource {
  return {
    lengthBytes: tar.length,
    read: (position, lengthBytes) => tar.subarray(position, position + lengthBytes),
  };
}

/** Puts layers into a store as a pull would, in two packs each; their DiffIDs and packs. */
export async function storeTars(
  paths: StorePaths,
  ...tars: readonly Buffer[]
): Promise<{ diffIds: Digest[]; packs: string[] }> {
  const diffIds: Digest[] = [];
  const packs: string[] = [];
  for (const tar of tars) {
    // Not at the end of a block: an extent may end anywhere.
    const cut = Math.floor(tar.length / 3);
    const halves = [tar.subarray(0, cut), tar.subarray(cut)].map((part) => ({
      part,
      ...writePack(paths, [part]),
    }));
    const extents = new ExtentList();
    for (const { part, id, offsets } of halves) extents.push(id, offsets[0]!, part.length);
    const diffId = digestOf(tar);
    await writeLayerRecord(paths, { diffId, extents });
    diffIds.push(diffId);
    packs.push(...halves.map(({ id }) => packPath(paths, id)));
  }
  return { diffIds, packs };
}

/**
 * A layer with one file that is larger than any disk: zeros that lie in a hole of a pack, named many times. `guard` are
 * options that end an export which begins to write it all the same.
 */
export async function storeEndlessLayer(paths: StorePaths): Promise<{
  diffId: Digest;
  tarBytes: number;
  guard: Pick<ExportOptions, 'signal' | 'onEvent'>;
}> {
  const item = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, sizeBytes: ENDLESS_BYTES };
  const header = tarHeader({ type: '0', name: 'endless', ...item });
  const { id, offsets } = writePack(paths, [header, TAR_END]);
  const hole = offsets[1]! + TAR_END.length;
  truncateSync(packPath(paths, id), hole + HOLE_BYTES);
  const extents = new ExtentList();
  extents.push(id, offsets[0]!, header.length);
  for (let at = 0; at < ENDLESS_BYTES; at += HOLE_BYTES) extents.push(id, hole, HOLE_BYTES);
  extents.push(id, offsets[1]!, TAR_END.length);
  const diffId = digestOf(header);
  await writeLayerRecord(paths, { diffId, extents });
  const controller = new AbortController();
  const onEvent = (event: ExportEvent) => {
    if (event.event === 'written' && event.writtenBytes > 0) controller.abort(new Error('it was written'));
  };
  return { diffId, tarBytes: extents.lengthBytes, guard: { signal: controller.signal, onEvent } };
}

/** A tar header with bytes replaced and its checksum set right again. */
export function editedHeader(block: Buffer, edits: Readonly<Record<number, Buffer | string>>): Buffer {
  const copy = Buffer.from(block);
  for (const [offset, bytes] of Object.entries(edits)) Buffer.from(bytes).copy(copy, Number(offset));
  copy.fill(' ', 148, 156);
  const sum = copy.reduce((total, byte) => total + byte, 0);
  copy.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1');
  return copy;
}
