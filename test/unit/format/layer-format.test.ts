import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import { layerKind } from '../../../src/format/layer-format.js';

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
  for (const [mediaType, format] of cases) assert.deepEqual(kindOf(mediaType), { format }, mediaType);
});

test('annotations make a layer chunked, whatever else they say', () => {
  const full = kindOf(`${TAR}+zstd`, { ...POSITIONS, ...TAR_SPLIT, other: 'x' });
  assert.equal(full.format, 'zstd:chunked');
  assert.deepEqual([full.positions?.toc.start, full.positions?.toc.end], [100, 150]);
  assert.deepEqual([full.positions?.tarSplit?.start, full.positions?.tarSplit?.end], [158, 178]);
  assert.equal(kindOf(`${TAR}+zstd`, POSITIONS).format, 'zstd:chunked-no-tarsplit');
  assert.equal(kindOf(`${TAR}+gzip`, ESTARGZ).format, 'estargz');
  assert.equal(kindOf(`${TAR}+zstd`, ESTARGZ).format, 'zstd');
});

test('a media type that is no layer is unsupported, naming the layer', () => {
  assert.throws(
    () => kindOf('application/vnd.oci.image.layer.v1.tar+gzip+encrypted'),
    (error) =>
      error instanceof PullError &&
      error.code === 'unsupported' &&
      error.layer === DIGEST &&
      error.message.includes('encrypted'),
  );
});

test('positions outside the blob are malformed, naming the layer', () => {
  const annotations = { ...POSITIONS, 'io.github.containers.zstd-chunked.manifest-position': '960:50:500:1' };
  assert.throws(
    () => kindOf(`${TAR}+zstd`, annotations),
    (error) => error instanceof PullError && error.code === 'metadata-malformed' && error.layer === DIGEST,
  );
});
