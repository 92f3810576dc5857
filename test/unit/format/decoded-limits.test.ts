import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MetadataLength, metadataMemoryBytes } from '../../../src/format/decoded-limits.js';
import { PullError } from '../../../src/format/error.js';

const MIB = 2 ** 20;

/** Metadata of so many small files, as the benchmark's sample of them has it. */
function honest(files: number): [MetadataLength, MetadataLength] {
  return [
    { bytes: files * 71, uncompressedBytes: files * 262 },
    { bytes: files * 42, uncompressedBytes: files * 1153 },
  ];
}

function codeOf(toc: MetadataLength, tarSplit?: MetadataLength): string | undefined {
  try {
    metadataMemoryBytes(toc, tarSplit);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof PullError);
    return error.code;
  }
}

test('the metadata of 200,000 files is read, that of 400,000 with tar-split is too much', () => {
  assert.equal(codeOf(...honest(200_000)), undefined);
  assert.equal(codeOf(...honest(400_000)), 'unsupported');
  assert.equal(codeOf(honest(400_000)[0]), undefined);
});

test('a part that would decode to more than 256 times its bytes is refused, beyond a MiB', () => {
  assert.equal(codeOf({ bytes: 1, uncompressedBytes: MIB }), undefined);
  assert.equal(codeOf({ bytes: 1000, uncompressedBytes: MIB + 256_001 }), 'metadata-malformed');
  assert.equal(
    codeOf(honest(10)[0], { bytes: 1000, uncompressedBytes: MIB + 256_001 }),
    'metadata-malformed',
  );
});

test('large metadata has to bring a byte for 32', () => {
  assert.equal(codeOf({ bytes: MIB, uncompressedBytes: 128 * MIB }), undefined);
  assert.equal(codeOf({ bytes: MIB, uncompressedBytes: 128 * MIB + 1 }), 'metadata-malformed');
  const half = { bytes: MIB / 2, uncompressedBytes: 64 * MIB + 1 };
  assert.equal(codeOf(half), undefined);
  assert.equal(codeOf(half, half), 'metadata-malformed');
});
