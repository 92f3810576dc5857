/** Blobs that are right by their digest and wrong in what they decode to. */
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { addBlob, type DescriptorJson, nameImage, noise, type Suffix, tarOf } from '../layout.js';
import { diffIdOf, type HostileLayer, type ImageRow, type LayerRow, tarFor } from './row.js';

/** How a tar becomes a blob. */
type Pack = (tar: Buffer) => Buffer | Promise<Buffer>;

async function written(layout: string, suffix: Suffix, pack: Pack, tar: Buffer): Promise<HostileLayer> {
  const blob = await pack(tar);
  const mediaType = `application/vnd.oci.image.layer.v1.tar${suffix}`;
  return { layer: { mediaType, digest: addBlob(layout, blob), size: blob.length }, diffId: diffIdOf(tar) };
}

/** A row with one layer, which is not what its DiffID or its media type says. */
function wrong(name: string, exit: number, suffix: Suffix, pack: Pack): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      const { layer, diffId } = await written(layout, suffix, pack, tarFor(ref));
      nameImage(layout, ref, [layer], [diffId]);
      return [];
    },
  };
}

function odd(name: string, suffix: Suffix, pack: Pack, own?: Buffer): LayerRow {
  return { name, warns: false, write: (layout, tar) => written(layout, suffix, pack, own ?? tar) };
}

/** A good blob under a descriptor that is changed. */
function described(name: string, change: (layer: DescriptorJson) => void): LayerRow {
  return {
    name,
    warns: false,
    write: async (layout, tar) => {
      const one = await written(layout, '+gzip', gzipSync, tar);
      change(one.layer);
      return one;
    },
  };
}

function flipped(bytes: Buffer, at: number, mask = 0xff): Buffer {
  const changed = Buffer.from(bytes);
  changed[at < 0 ? bytes.length + at : at]! ^= mask;
  return changed;
}

function inParts(tar: Buffer, partBytes: number, pack: (part: Buffer) => Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < tar.length; at += partBytes) parts.push(pack(tar.subarray(at, at + partBytes)));
  return Buffer.concat(parts);
}

/** A frame of no content with this header behind the magic number (RFC 8878, 3.1.1.1), and one empty block. */
function frame(...header: readonly number[]): Buffer {
  return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...header, 1, 0, 0]);
}

function skippable(sizeBytes: number, content = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a5f, 0);
  header.writeUInt32LE(sizeBytes, 4);
  return Buffer.concat([header, content]);
}

const ZEROS = tarOf({ zeros: Buffer.alloc(48 * 2 ** 20) });

export const WRONG_LAYERS: readonly ImageRow[] = [
  wrong('gzip that is cut off', 6, '+gzip', (tar) => gzipSync(tar).subarray(0, -20)),
  wrong('gzip with other bytes behind it', 6, '+gzip', (tar) =>
    Buffer.concat([gzipSync(tar), noise(9, 500)]),
  ),
  wrong('gzip with a wrong checksum', 6, '+gzip', (tar) => flipped(gzipSync(tar), -6)),
  wrong('zstd of 48 MiB of zeros that is another tar', 6, '+zstd', () => compress(ZEROS, 1)),
  wrong('zstd with other bytes behind it', 6, '+zstd', async (tar) =>
    Buffer.concat([await compress(tar), noise(9, 500)]),
  ),
  wrong('an empty zstd frame that asks for a window of 3.75 TiB', 6, '+zstd', () => frame(0, 0xff)),
  wrong('zstd with a skippable frame of 4 GiB at its end', 6, '+zstd', async (tar) =>
    Buffer.concat([await compress(tar), skippable(2 ** 32 - 1)]),
  ),
  wrong('zstd that says it is gzip', 0, '+gzip', (tar) => compress(tar)),
  wrong('a tar that is another one', 6, '', () => tarOf({ evil: noise(8, 5000) })),
];

export const ODD_LAYERS: readonly LayerRow[] = [
  described('a layer of size 0, whose digest is right', (layer) => {
    layer.size = 0;
  }),
  described('a layer with an annotation named __proto__', (layer) => {
    layer.annotations = Object.defineProperty({}, '__proto__', { value: 'x', enumerable: true });
  }),
  odd('gzip with zeros behind it', '+gzip', (tar) => Buffer.concat([gzipSync(tar), Buffer.alloc(5000)])),
  odd('gzip of thousands of members', '+gzip', (tar) => inParts(tar, 20, gzipSync)),
  odd('gzip with 20,000 members of nothing', '+gzip', (tar) =>
    Buffer.concat([gzipSync(tar), ...Array<Buffer>(20_000).fill(gzipSync(''))]),
  ),
  odd('gzip of 48 MiB of zeros', '+gzip', (tar) => gzipSync(tar, { level: 1 }), ZEROS),
  odd('zstd with 50,000 skippable frames', '+zstd', async (tar) =>
    Buffer.concat([...Array<Buffer>(50_000).fill(skippable(0)), await compress(tar)]),
  ),
  odd('noise in place of a tar, which a pull does not look into', '', (tar) => tar, noise(7, 20_000)),
];
