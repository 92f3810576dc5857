import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import { addJson, emptyLayout, nameDocument, OCI_INDEX, OCI_MANIFEST } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

/** Node with a session takes about 80 MB, the manifests up to their limit 64 MiB, and reading the largest of them some 10 MB. */
const MAX_BYTES = 300e6;

/** Larger than 4 MiB it is refused alone. */
const LARGE = 'x'.repeat(4e6);

function manifestOf(annotations: Record<string, string>, layers: readonly string[]) {
  const descriptorOf = (digest: string, mediaType: string) => ({ mediaType, digest, size: 100 });
  return {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptorOf(digestOf('config'), 'application/vnd.oci.image.config.v1+json'),
    layers: layers.map((digest) => descriptorOf(digest, 'application/vnd.oci.image.layer.v1.tar')),
    annotations,
  };
}

const HOSTILE = [
  {
    what: 'manifests of 64 MiB together',
    manifests: (row: number) => manifestOf({ row: String(row), LARGE }, []),
    count: 20,
    limit: /more than 67108864 bytes of manifests/,
  },
  {
    what: '10,000 manifests and blobs',
    manifests: (row: number) =>
      manifestOf(
        {},
        Array.from({ length: 1000 }, (_, i) => digestOf(`${row} ${i}`)),
      ),
    count: 12,
    limit: /more than 10000 manifests and blobs/,
  },
] as const;

for (const { what, manifests, count, limit } of HOSTILE) {
  test(`a copy of all platforms ends at ${what}, and asks for no more of them`, async (t) => {
    const layout = emptyLayout(t);
    const entries = Array.from({ length: count }, (_, row) => addJson(layout, OCI_MANIFEST, manifests(row)));
    nameDocument(layout, 'it', OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries });
    const registry = await startSandbox(t, { layout });
    const options = { store: temporaryDirectory(t), workers: 1 };
    const child = startPullingChild(t, { image: `${registry.host}/x:it`, options, use: 'copy' });
    assert.equal(await child.gone, 0);
    const [outcome] = outcomesOf(child.lines);
    assert.ok(outcome !== undefined && 'code' in outcome && outcome.code === 'unsupported');
    assert.match(outcome.message, limit);
    const asked = registry.requests.filter(({ path }) => path.includes('/manifests/')).length;
    assert.ok(asked < count, `${asked} manifests`);
    const bytes = maxRssBytesOf(child.lines);
    t.diagnostic(`${(bytes / 1e6).toFixed(0)} MB`);
    assert.ok(bytes < MAX_BYTES, `${bytes} bytes`);
  });
}
