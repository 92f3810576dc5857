import type { Digest } from '../../src/format/digest.js';
import type { TarSource } from '../../src/format/tar-entries.js';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { ExtentList } from '../../src/store/extents.js';
import { writeLayerRecord } from '../../src/store/layer-record.js';
import { packPath, type StorePaths } from '../../src/store/paths.js';
import { digestOf, writePack } from '../unit/store/support.js';

/** An entry of a made-up layer: what is not said is as for an ordinary file of root. */
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

/** A tar in memory as one that can be read anywhere. */
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
    // Not at a block's end: an extent may end anywhere.
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
