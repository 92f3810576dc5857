import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { inspectImage } from '../../src/api/pull.js';
import { firstErrorMessage } from '../../src/registry/refusal.js';
import { parseToken } from '../../src/registry/token.js';
import { nameManifest } from '../../src/sandbox/image-writer.js';
import { addBlob, type DescriptorJson, emptyLayout, nameImage, OCI_MANIFEST } from '../support/layout.js';
import { ZPULL } from '../support/programs.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const CONFIG = 'application/vnd.oci.image.config.v1+json';
const CONFIG_JSON = '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}';

/** A registry that serves an image of these documents as `evil`; `manifest` gets the config's descriptor. */
async function serve(t: TestContext, config: string, manifest: (config: DescriptorJson) => string) {
  const layout = emptyLayout(t);
  const add = (mediaType: string, document: string): DescriptorJson => {
    const bytes = Buffer.from(document);
    return { mediaType, digest: addBlob(layout, bytes), size: bytes.length };
  };
  const named = add(OCI_MANIFEST, manifest(add(CONFIG, config)));
  nameManifest(layout, 'evil', named as Parameters<typeof nameManifest>[2]);
  nameImage(layout, 'honest', [], []);
  const { host } = await startSandbox(t, { layout });
  return { host, store: temporaryDirectory(t) };
}

const manifestOf = (config: DescriptorJson, more = ''): string =>
  `{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","config":${JSON.stringify(config)},"layers":[]${more}}`;

/** Documents that others read as another image, or that nest without end: config, and what the manifest has more. */
const EVIL: ReadonlyArray<readonly [what: string, config: string, more: string, message: RegExp]> = [
  ['a manifest of two lists of layers', CONFIG_JSON, ',"Layers":[]', /takes? for "layers"/],
  ['a manifest that has its layers twice', CONFIG_JSON, ',"layers":[]', /"layers" twice/],
  ['a manifest that is an index to others', CONFIG_JSON, ',"Manifests":[]', /take for "manifests"/],
  ['a config of two architectures', CONFIG_JSON.replace('{', '{"Architecture":"arm",'), '', /"architecture"/],
  [
    'a config nested 400,000 deep',
    CONFIG_JSON.replace('{', `{"x":${'['.repeat(400_000)}${']'.repeat(400_000)},`),
    '',
    /at most 100 nested values/,
  ],
];

for (const [what, config, more, message] of EVIL) {
  test(`${what} ends a pull and an inspection with exit 6, and an honest image comes after it`, async (t) => {
    const { host, store } = await serve(t, config, (descriptor) => manifestOf(descriptor, more));
    const options = { store, platform: 'linux/amd64' };
    for (const use of [pull, inspectImage]) {
      const error = await failureOf(use(`${host}/x:evil`, options));
      assert.deepEqual([error.code, error.exitCode], ['metadata-malformed', 6]);
      assert.match(error.message, message);
      assert.ok(error.hint !== undefined);
    }
    assert.equal((await pull(`${host}/x:honest`, options)).result.verified, true);
  });
}

test('a copy reads the manifest as strictly as a pull', async (t) => {
  const { host } = await serve(t, CONFIG_JSON, (descriptor) => manifestOf(descriptor, ',"Layers":[]'));
  const destination = { kind: 'layout', path: temporaryDirectory(t) } as const;
  const error = await failureOf(copyImage(`${host}/x:evil`, { destination }));
  assert.equal(error.code, 'metadata-malformed');
});

test('the command line says of a config nested 400,000 deep what is wrong with it', async (t) => {
  const [, config = '', , message = /./] = EVIL.at(-1)!;
  const { host, store } = await serve(t, config, manifestOf);
  const command = ['inspect', '--json', `${host}/x:evil`, '--store', store];
  const child = spawn(process.execPath, [...ZPULL, ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  const { error } = JSON.parse(await text(child.stdout)) as { error: { message: string; hint: string } };
  assert.deepEqual(await closed, [6, null]);
  assert.match(error.message, message);
  assert.notEqual(error.hint, '');
});

test('answers of token servers and refusals that nest without end say nothing', () => {
  const deep = `${'['.repeat(400_000)}${']'.repeat(400_000)}`;
  for (const answer of [deep, `{"token":${deep}}`, `{"errors":[{"message":${deep}}]}`]) {
    assert.throws(() => parseToken(Buffer.from(answer), 'auth.example', 0), { code: 'answer-unexpected' });
    assert.equal(firstErrorMessage(Buffer.from(answer)), undefined);
  }
});
