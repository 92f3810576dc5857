import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLayout, nameManifest, openBlob, putJson } from '../../../src/sandbox/image-writer.js';
import { temporaryDirectory } from '../../support/temporary.js';

test('a blob gets the name of its digest, and a discarded one leaves nothing', (t) => {
  const layout = temporaryDirectory(t);
  createLayout(layout);
  const blob = openBlob(layout);
  blob.write(Buffer.from('hel'));
  blob.write(Buffer.from('lo'));
  const { digest, sizeBytes } = blob.finish();
  assert.equal(digest, 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
  assert.equal(sizeBytes, 5);
  const other = openBlob(layout);
  other.write(Buffer.alloc(3 * 2 ** 20));
  other.discard();
  assert.deepEqual(readdirSync(join(layout, 'blobs/sha256')), [digest.slice(7)]);
  assert.equal(readFileSync(join(layout, 'blobs/sha256', digest.slice(7)), 'utf8'), 'hello');
  assert.equal(readFileSync(join(layout, 'oci-layout'), 'utf8'), '{"imageLayoutVersion":"1.0.0"}');
});

test('a name is replaced and other names stay', (t) => {
  const layout = temporaryDirectory(t);
  createLayout(layout);
  const [one, two] = [1, 2].map((schemaVersion) => putJson(layout, 'type', { schemaVersion }));
  nameManifest(layout, 'v1', one!);
  nameManifest(layout, 'v2', one!);
  nameManifest(layout, 'v1', two!);
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
  const annotations = (name: string) => ({ 'org.opencontainers.image.ref.name': name });
  assert.deepEqual(manifests, [
    { ...one, annotations: annotations('v2') },
    { ...two, annotations: annotations('v1') },
  ]);
});

test('a malformed index.json is refused and left alone', (t) => {
  const layout = temporaryDirectory(t);
  createLayout(layout);
  const manifest = putJson(layout, 'type', {});
  for (const text of ['{', '[]', '{"manifests":{}}', '{"manifests":[null]}']) {
    writeFileSync(join(layout, 'index.json'), text);
    assert.throws(() => nameManifest(layout, 'v1', manifest), { code: 'metadata-malformed' }, text);
    assert.equal(readFileSync(join(layout, 'index.json'), 'utf8'), text);
  }
});
