import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import { TAR_END, type TarItem, tarHeader } from '../../../src/format/tar-writer.js';
import { Crc64, writeChunkedLayer } from '../../../src/sandbox/chunked-writer.js';
import type { WrittenLayer } from '../../../src/sandbox/layer-writer.js';
import { createPrng } from '../../../src/sandbox/sample-content.js';
import { cutUp, decodeLayer, fixtureLayers } from '../../support/chunked-layers.js';

const FILE: TarItem = {
  type: '0',
  name: 'f',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeSeconds: 1,
  mtimeNanos: 0,
};

async function write(pieces: readonly Buffer[]): Promise<{ layer: WrittenLayer; blob: Buffer }> {
  const written: Buffer[] = [];
  const layer = await writeChunkedLayer(
    pieces,
    (bytes) => written.push(bytes),
    () => {},
  );
  return { layer, blob: Buffer.concat(written) };
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A TOC without what depends on how well the writer compresses. */
function withoutOffsets(toc: string): string {
  return toc.replace(/"(?:offset|endOffset|tarSplitDigest)":(?:\d+|"[^"]*"),?/g, '');
}

test('a layer of the reference writer gives its tar-split to the byte, and its TOC but for the offsets', async () => {
  for (const fixture of await fixtureLayers()) {
    for (const pieceBytes of [fixture.tar.length, 1000]) {
      const { layer, blob } = await write(cutUp(fixture.tar, pieceBytes));
      const mine = await decodeLayer(blob, layer.annotations);
      assert.ok(mine.tar.equals(fixture.tar), `${fixture.name}: tar`);
      assert.equal(mine.tarSplit, fixture.tarSplit, `${fixture.name}: tar-split`);
      assert.equal(withoutOffsets(mine.toc), withoutOffsets(fixture.toc), `${fixture.name}: TOC`);
      assert.equal(layer.diffId, sha256(fixture.tar));
      assert.equal(layer.tarBytes, fixture.tar.length);
    }
  }
});

test('every content and every chunk is at its offset in the TOC', async () => {
  for (const fixture of await fixtureLayers()) {
    const { layer, blob } = await write([fixture.tar]);
    const entries = JSON.parse((await decodeLayer(blob, layer.annotations)).toc).entries;
    let last = { endOffset: 0 };
    for (const [row, entry] of entries.entries()) {
      if (entry.digest !== undefined) {
        const content = await decompress(blob.subarray(entry.offset, entry.endOffset));
        assert.equal(content.length, entry.size);
        assert.equal(sha256(content), entry.digest);
        assert.ok(entry.offset > last.endOffset, 'headers lie between contents');
        last = entry;
      }
      if (entry.chunkDigest !== undefined) {
        const next = entries[row + 1];
        const end = next?.type === 'chunk' ? next.offset : last.endOffset;
        const chunk = await decompress(blob.subarray(entry.offset, end));
        assert.equal(chunk.length, entry.chunkSize);
        assert.equal(sha256(chunk), entry.chunkDigest);
      }
    }
  }
});

test('annotations, footer and skippable frames agree', async () => {
  const { layer, blob } = await write([
    tarHeader({ ...FILE, sizeBytes: 512 }),
    Buffer.alloc(512, 1),
    TAR_END,
  ]);
  const value = (key: string) => layer.annotations[`io.github.containers.zstd-chunked.${key}`]!;
  const toc = value('manifest-position').split(':').map(Number);
  const tarSplit = value('tarsplit-position').split(':').map(Number);
  const footer = blob.subarray(-64);
  const numbers = Array.from({ length: 7 }, (_, row) => Number(footer.readBigUInt64LE(row * 8)));
  assert.deepEqual(numbers, [...toc, ...tarSplit]);
  assert.equal(footer.toString('latin1', 56), 'GNUlInUx');
  for (const [start, length] of [toc, tarSplit, [blob.length - 64, 64]]) {
    assert.equal(blob.toString('hex', start! - 8, start! - 4), '502a4d18');
    assert.equal(blob.readUInt32LE(start! - 4), length);
  }
  const content = ([start, length]: number[]) => blob.subarray(start!, start! + length!);
  assert.equal(value('manifest-checksum'), sha256(content(toc)));
  const decoded = await decodeLayer(blob, layer.annotations);
  assert.equal(JSON.parse(decoded.toc).tarSplitDigest, sha256(content(tarSplit)));
  assert.deepEqual([toc[2], toc[3], tarSplit[2]], [decoded.toc.length, 1, decoded.tarSplit.length]);
});

test('a chunk beyond 4 MiB becomes several frames and stays one chunk', async () => {
  const hole = Buffer.alloc(9 * 2 ** 20);
  const content = Buffer.concat([Buffer.from('head'), hole, Buffer.from('tail')]);
  const padding = Buffer.alloc(512 - (content.length % 512));
  const tar = Buffer.concat([tarHeader({ ...FILE, sizeBytes: content.length }), content, padding, TAR_END]);
  const { layer, blob } = await write(cutUp(tar, 300_000));
  const decoded = await decodeLayer(blob, layer.annotations);
  assert.ok(decoded.tar.equals(tar));
  const { entries } = JSON.parse(decoded.toc);
  assert.deepEqual(
    entries.map((entry: Record<string, unknown>) => [entry['chunkSize'], entry['chunkType']]),
    [
      [4, undefined],
      [hole.length, 'zeros'],
      [4, undefined],
    ],
  );
  assert.equal(entries[1].chunkDigest, sha256(hole));
  assert.equal(entries[0].digest, sha256(content));
  const frames = blob.subarray(entries[1].offset, entries[2].offset);
  let magics = 0;
  for (
    let at = frames.indexOf('28b52ffd', 0, 'hex');
    at >= 0;
    at = frames.indexOf('28b52ffd', at + 4, 'hex')
  ) {
    magics += 1;
  }
  assert.equal(magics, 3);
});

test('a tar without entries is a layer without entries', async () => {
  const { layer, blob } = await write([TAR_END]);
  const decoded = await decodeLayer(blob, layer.annotations);
  assert.deepEqual(decoded.tar, TAR_END);
  assert.equal(JSON.parse(decoded.toc).entries, null);
});

test('an entry without a type in TOCs is refused', async () => {
  const global = tarHeader({ ...FILE, type: '6' });
  global[156] = 0x37;
  global[153] = global[153]! + 1;
  await assert.rejects(write([global, TAR_END]), { code: 'unsupported' });
});

const POLYNOMIAL = 0xd800000000000000n;
const ALL_ONES = 0xffffffffffffffffn;

/** The definition, bit by bit. */
function slowly(bytes: Buffer): string {
  let crc = ALL_ONES;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1n ? (crc >> 1n) ^ POLYNOMIAL : crc >> 1n;
  }
  return (crc ^ ALL_ONES).toString(16).padStart(16, '0');
}

function checksum(...pieces: Buffer[]): string {
  const crc = new Crc64();
  for (const piece of pieces) crc.update(piece);
  return crc.digest().toString('hex');
}

test('the catalogued check value of CRC-64/GO-ISO comes out', () => {
  assert.equal(checksum(Buffer.from('123456789')), 'b90956c775a41001');
});

test('the checksum of no bytes is zero', () => {
  assert.equal(checksum(), '0000000000000000');
});

test('eight bytes at a time give the checksum of the definition, at every length and offset', () => {
  const prng = createPrng(1, 1);
  const bytes = Buffer.from(Array.from({ length: 200 }, () => prng.below(256)));
  for (let start = 0; start < 9; start += 1) {
    for (let end = start; end < 60; end += 1) {
      const part = bytes.subarray(start, end);
      assert.equal(checksum(part), slowly(part));
    }
  }
  assert.equal(checksum(bytes), slowly(bytes));
});

test('the checksum does not depend on where the bytes are cut', () => {
  const bytes = Buffer.from('the quick brown fox jumps over the lazy dog, twice and more');
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    assert.equal(checksum(bytes.subarray(0, cut), bytes.subarray(cut)), checksum(bytes));
  }
});
