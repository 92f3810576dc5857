import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { inspectImage, type PullEvent } from '../../src/api/pull.js';
import { emptyLayout, nameDocument, nameImage, OCI_INDEX, OCI_MANIFEST } from '../support/layout.js';
import { failureOf, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const LONG = 'x'.repeat(1_000_000);
const HASH = digestOf('none');

/** All that an inspection tells, however it ends. */
async function inspect(t: TestContext, layout: string) {
  const { host } = await startSandbox(t, { layout });
  const events: PullEvent[] = [];
  const options = { store: temporaryDirectory(t), onEvent: (event: PullEvent) => events.push(event) };
  return { ending: inspectImage(`${host}/x:it`, options), events };
}

test('a hint lists some of 4,096 platforms and counts the others', async (t) => {
  const layout = emptyLayout(t);
  const manifests = Array.from({ length: 4096 }, (_, i) => ({
    mediaType: OCI_MANIFEST,
    digest: digestOf(`${i}`),
    size: 100,
    platform: { os: 'plan9', architecture: `${'x'.repeat(100)}${i}` },
  }));
  nameDocument(layout, 'it', OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  const { code, hint } = await failureOf((await inspect(t, layout)).ending);
  assert.equal(code, 'platform-not-found');
  assert.match(hint, /^choose one with --platform: plan9\/x+0, .* and 4,0\d\d more$/);
  assert.ok(hint.length < 700, `${hint.length} characters`);
});

test('999 layers with annotations that are no good are eight warnings and a count', async (t) => {
  const layout = emptyLayout(t);
  const layers = Array.from({ length: 999 }, (_, i) => ({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    digest: digestOf(`${i}`),
    size: 100 + i,
    annotations: {
      'io.github.containers.zstd-chunked.manifest-checksum': HASH,
      'io.github.containers.zstd-chunked.manifest-position': `${1000 + i}:10:10:1`,
    },
  }));
  nameImage(
    layout,
    'it',
    layers,
    layers.map(({ digest }) => digest),
  );
  const { ending, events } = await inspect(t, layout);
  assert.equal((await ending).layers.length, 999);
  const told = warnings(events);
  assert.equal(told.length, 9);
  assert.match(told.at(-1) ?? '', /^991 more warnings like this: layer sha256/);
});

for (const [what, change] of [
  ['a media type of a layer', { mediaType: LONG }],
  [
    'addresses of a foreign layer',
    { urls: Array.from({ length: 32 }, (_, i) => `http://h${i}.${'x.'.repeat(5000)}`) },
  ],
  ['an annotation', { annotations: { [LONG]: 1 } }],
  ['a key', { [LONG]: 1, DIGEST: 2 }],
  ['a size', { size: LONG }],
] as const) {
  test(`${what} without end is cut in what is told of it`, async (t) => {
    const layout = emptyLayout(t);
    const mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
    const layer = { mediaType, digest: HASH, size: 5, ...change };
    nameImage(layout, 'it', [layer as unknown as Parameters<typeof nameImage>[2][number]], [HASH]);
    const { ending, events } = await inspect(t, layout);
    const { message, hint } = await failureOf(ending);
    for (const text of [message, hint, ...events.map((event) => JSON.stringify(event))]) {
      assert.ok(text.length < 1500, `${text.length} characters: ${text.slice(0, 200)}…`);
    }
  });
}
