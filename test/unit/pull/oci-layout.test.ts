import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ManifestBytes, nameInIndex } from '../../../src/pull/oci-layout.js';
import { digestOf } from '../store/support.js';

function document(text: string): ManifestBytes {
  return { digest: digestOf(text), mediaType: `type/${text}`, bytes: Buffer.from(text) };
}

/** Digest and name of each entry. */
function entries(index: Buffer): Array<[string, string | undefined]> {
  const { manifests } = JSON.parse(index.toString()) as {
    manifests: Array<{ digest: string; annotations?: Record<string, string> }>;
  };
  return manifests.map(({ digest, annotations }) => [
    digest,
    annotations?.['org.opencontainers.image.ref.name'],
  ]);
}

test('a tag names one image, and other images keep their tags', () => {
  const [a, b] = [document('a'), document('b')];
  const both = nameInIndex(nameInIndex(undefined, a, 'one'), b, 'two');
  assert.deepEqual(entries(both), [
    [a.digest, 'one'],
    [b.digest, 'two'],
  ]);
  assert.deepEqual(entries(nameInIndex(both, b, 'one')), [
    [b.digest, 'two'],
    [b.digest, 'one'],
  ]);
});

test('an image without a tag is listed once', () => {
  const [a, b] = [document('a'), document('b')];
  const named = nameInIndex(nameInIndex(undefined, a, undefined), b, undefined);
  assert.deepEqual(entries(nameInIndex(named, a, undefined)), [
    [b.digest, undefined],
    [a.digest, undefined],
  ]);
});

test('an entry has media type and size, and what others had besides stays', () => {
  const before = Buffer.from(JSON.stringify({ manifests: [{ digest: 'x', artifactType: 'y' }] }));
  const { manifests } = JSON.parse(nameInIndex(before, document('abc'), undefined).toString());
  assert.deepEqual(manifests, [
    { digest: 'x', artifactType: 'y' },
    { mediaType: 'type/abc', digest: digestOf('abc'), size: 3 },
  ]);
});

/** JSON.stringify would overflow the stack. */
const DEEP = `{"manifests": [{"a": ${'['.repeat(400_000)}${']'.repeat(400_000)}}]}`;

test('a file that is not an index is refused, not overwritten', () => {
  for (const text of ['', '[]', '{"manifests": {}}', '{"manifests": [1]}', DEEP]) {
    assert.throws(() => nameInIndex(Buffer.from(text), document('a'), 'one'), {
      code: 'metadata-malformed',
      hint: /another destination/,
    });
  }
});
