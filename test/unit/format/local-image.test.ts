import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatLocalImage, parseLocalImage } from '../../../src/format/local-image.js';

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const parse = (text: string) =>
  parseLocalImage(text, (path) => (path.startsWith('/') ? path : `/cwd/${path}`));

test('a prefix makes a name that of a layout: a path, a tag behind the first colon, a digest at the end', () => {
  for (const [text, transport, path, tag, digest] of [
    ['oci:dir', 'oci', '/cwd/dir'],
    ['oci:/a/b:v1', 'oci', '/a/b', 'v1'],
    ['oci-archive:x.tar', 'oci-archive', '/cwd/x.tar'],
    [
      'oci-archive:/x.tar:docker.io/library/alpine:3.20',
      'oci-archive',
      '/x.tar',
      'docker.io/library/alpine:3.20',
    ],
    [`oci:/a@b/c@${DIGEST}`, 'oci', '/a@b/c', undefined, DIGEST],
    [`oci:/a:v1@${DIGEST}`, 'oci', '/a', 'v1', DIGEST],
    ['oci:/with space', 'oci', '/with space'],
  ] as const) {
    const image = parse(text)!;
    assert.deepEqual(
      [image.transport, image.path, image.tag, image.digest],
      [transport, path, tag, digest],
      text,
    );
    assert.deepEqual(parse(formatLocalImage(image)), image, text);
  }
  for (const text of ['alpine', 'docker.io/library/oci:1', 'ocis:1', 'oci', 'oci-archives:x', 'OCI:x'])
    assert.equal(parse(text), undefined, text);
});

test('what Helm calls oci:// is no layout, and the hint says how it is named', () => {
  assert.throws(() => parse('oci://ghcr.io/owner/name'), {
    code: 'reference-malformed',
    hint: /named without oci:\/\//,
  });
  assert.equal(parse('oci:///a/b')?.path, '///a/b');
});

test('a local name without a path, with a tag that cannot be one, or without end is refused', () => {
  for (const text of [
    'oci:',
    'oci::tag',
    'oci-archive:',
    'oci:dir:',
    'oci:dir:-x',
    'oci:dir:a b',
    `oci:${'x'.repeat(5000)}`,
  ])
    assert.throws(() => parse(text), { code: 'reference-malformed', hint: /oci:DIR:TAG/ }, text.slice(0, 20));
});
