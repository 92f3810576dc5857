import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import {
  type Compression,
  compressionOf,
  HEAD_BYTES,
  layerKind,
  otherCompression,
} from '../../../src/format/layer-format.js';
import { noise, tarOf } from '../../support/layout.js';

const DIGEST = parseDigest(`sha256:${'5'.repeat(64)}`, 'digest');
const TAR = 'application/vnd.oci.image.layer.v1.tar';
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar';
const POSITIONS = {
  'io.github.containers.zstd-chunked.manifest-checksum': DIGEST,
  'io.github.containers.zstd-chunked.manifest-position': '100:50:500:1',
};
const TAR_SPLIT = { 'io.github.containers.zstd-chunked.tarsplit-position': '158:20:200' };
const ESTARGZ = { 'containerd.io/snapshot/stargz/toc.digest': DIGEST };

function kindOf(mediaType: string, annotations?: Record<string, string>) {
  return layerKind({
    mediaType,
    digest: DIGEST,
    sizeBytes: 1000,
    ...(annotations === undefined ? {} : { annotations }),
  });
}

test('the media type says how a layer is compressed, in OCI as in Docker', () => {
  const cases = [
    [TAR, 'tar'],
    [`${TAR}+gzip`, 'gzip'],
    [`${TAR}+zstd`, 'zstd'],
    [DOCKER, 'tar'],
    [`${DOCKER}.gzip`, 'gzip'],
    [`${DOCKER}.zstd`, 'zstd'],
  ] as const;
  for (const [mediaType, format] of cases) {
    const kind = { format, compression: format, reason: `media type ${mediaType}`, foreign: false };
    assert.deepEqual(kindOf(mediaType), kind);
  }
});

test('foreign and non-distributable layers are known as such', () => {
  const cases = [
    ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'gzip'],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar', 'tar'],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', 'gzip'],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar+zstd', 'zstd'],
  ] as const;
  for (const [mediaType, compression] of cases) {
    const kind = kindOf(mediaType);
    assert.deepEqual([kind.compression, kind.foreign], [compression, true], mediaType);
  }
});

test('annotations make a layer chunked, whatever else they say', () => {
  const { format, location, reason } = kindOf(`${TAR}+zstd`, { ...POSITIONS, ...TAR_SPLIT, other: 'x' });
  assert.equal(format, 'zstd:chunked');
  assert.match(reason, /annotations io\.github\.containers\.zstd-chunked\.\* with tar-split/);
  assert.ok(location?.by === 'annotations');
  assert.deepEqual([location.toc.start, location.toc.end], [100, 150]);
  assert.deepEqual([location.tarSplit?.start, location.tarSplit?.end], [158, 178]);
  assert.equal(kindOf(`${TAR}+zstd`, POSITIONS).format, 'zstd:chunked-no-tarsplit');
});

test('an eStargz layer has its table of contents where its footer says, with the digest of the annotation', () => {
  const { format, location } = kindOf(`${TAR}+gzip`, ESTARGZ);
  assert.equal(format, 'estargz');
  assert.deepEqual(location, { by: 'footer', compression: 'gzip', tocDigest: DIGEST });
  const { problem, ...bad } = kindOf(`${TAR}+gzip`, { 'containerd.io/snapshot/stargz/toc.digest': 'md5:1' });
  assert.match(problem ?? '', /is no digest/);
  assert.deepEqual([bad.format, bad.location], ['gzip', undefined]);
});

test('annotations count whatever the media type says of the compression, and those of a layer that has both in turn', () => {
  const estargz = { by: 'footer', compression: 'gzip', tocDigest: DIGEST };
  for (const mediaType of [TAR, `${TAR}+gzip`, `${DOCKER}.gzip`, 'application/octet-stream', '']) {
    assert.equal(kindOf(mediaType, POSITIONS).format, 'zstd:chunked-no-tarsplit', mediaType);
    const { otherwise, ...location } = kindOf(mediaType, { ...POSITIONS, ...ESTARGZ }).location as {
      otherwise?: { by: string };
    };
    assert.deepEqual([location, otherwise?.by], [estargz, 'annotations'], mediaType);
  }
  assert.equal(kindOf(`${TAR}+zstd`, { ...POSITIONS, ...ESTARGZ }).format, 'zstd:chunked-no-tarsplit');
  assert.deepEqual(kindOf(`${TAR}+zstd`, ESTARGZ).location, estargz);
  // What a layer was before it was compressed anew.
  const stale = { 'io.github.containers.zstd-chunked.manifest-position': '1:2' };
  assert.deepEqual(kindOf(`${TAR}+gzip`, stale), kindOf(`${TAR}+gzip`));
});

test('a large zstd layer without annotations may have a footer, a small one is not asked', () => {
  const kind = (sizeBytes: number) => layerKind({ mediaType: `${TAR}+zstd`, digest: DIGEST, sizeBytes });
  assert.deepEqual(kind(2 ** 22).location, { by: 'footer', compression: 'zstd' });
  assert.equal(kind(2 ** 22 - 1).location, undefined);
});

test('a media type that is no layer is unsupported, naming the layer', () => {
  assert.throws(
    () => kindOf('application/vnd.oci.image.layer.v1.tar+gzip+encrypted'),
    (error) =>
      error instanceof PullError &&
      error.code === 'unsupported' &&
      error.layer === DIGEST &&
      error.message.includes('encrypted') &&
      error.hint?.includes('keys') === true,
  );
});

test('positions outside the blob do not count, and it is said why', () => {
  const annotations = { ...POSITIONS, 'io.github.containers.zstd-chunked.manifest-position': '960:50:500:1' };
  const { format, location, problem } = kindOf(`${TAR}+zstd`, annotations);
  assert.deepEqual([format, location], ['zstd', undefined]);
  assert.match(problem ?? '', /manifest-position ends at 1010, beyond the blob's 1000 bytes/);
});

/** Where a tar header has its checksum, 8 bytes. */
const CHECKSUM_AT = 148;

const MAGIC: Readonly<Record<Exclude<Compression, 'tar'>, readonly number[]>> = {
  gzip: [0x1f, 0x8b, 8],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
};

test('compressed bytes are recognised whatever bytes are in place of a checksum', () => {
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

test('a tar is recognised by its checksum in every form that writers use', () => {
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
