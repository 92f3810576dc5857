import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Compression,
  compressionOf,
  HEAD_BYTES,
  otherCompression,
} from '../../../src/format/compression.js';
import { noise, tarOf } from '../../support/layout.js';

/** Where a tar header has its checksum, 8 bytes. */
const CHECKSUM_AT = 148;

const MAGIC: Readonly<Record<Exclude<Compression, 'tar'>, readonly number[]>> = {
  gzip: [0x1f, 0x8b, 8],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
};

test('compressed bytes are told whatever stands in the place of a checksum', () => {
  const fields = [
    '6 \x8f\x01\x02\x03\x04\x05',
    '1 2 3 4 ',
    '7\0\xff\xff\xff\xff\xff\xff',
    '       \0',
    '0000000',
    '12345678',
  ];
  for (const [compression, magic] of Object.entries(MAGIC)) {
    for (const field of fields) {
      const head = noise(7, HEAD_BYTES);
      head.set(magic);
      head.write(field, CHECKSUM_AT, 'latin1');
      assert.equal(compressionOf(head, compression as Compression), compression, JSON.stringify(field));
      assert.equal(compressionOf(head, 'tar'), compression, JSON.stringify(field));
      assert.equal(otherCompression(head), undefined);
    }
  }
});

test('a tar is told by its checksum, in each of the forms that writers give it', () => {
  const head = tarOf({ file: Buffer.from('x') }).subarray(0, HEAD_BYTES);
  const sum = head.reduce(
    (total, byte, at) => total + (at >= CHECKSUM_AT && at < CHECKSUM_AT + 8 ? 32 : byte),
    0,
  );
  const octal = sum.toString(8);
  for (const field of [
    `${octal.padStart(6, '0')}\0 `,
    `${octal.padStart(6, ' ')}\0 `,
    `${octal.padStart(7, '0')}\0`,
    `${octal} `.padEnd(8, '\0'),
    octal.padEnd(8, ' '),
  ]) {
    const block = Buffer.from(head);
    block.fill(0, CHECKSUM_AT, CHECKSUM_AT + 8).write(field, CHECKSUM_AT, 'latin1');
    assert.equal(compressionOf(block, 'gzip'), 'tar', JSON.stringify(field));
  }
});
