import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { copyImage } from '../../src/api/copy.js';
import { inspectImage } from '../../src/api/pull.js';
import { nameManifest } from '../../src/sandbox/image-writer.js';
import { addBlob, emptyLayout, OCI_INDEX, OCI_MANIFEST, tarOf } from '../support/layout.js';
import { failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

/** What a writer may leave out or make null. */
type Json = Record<string, unknown>;

const CONFIG = 'application/vnd.oci.image.config.v1+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const TAR = tarOf({ file: Buffer.from('content') });
const BLOB = gzipSync(TAR);
const DIFF_ID = digestOf(TAR);
const PLATFORM = 'linux/amd64';

const configOf = (more: Json = {}): Json => ({
  os: 'linux',
  architecture: 'amd64',
  rootfs: { type: 'layers', diff_ids: [DIFF_ID] },
  ...more,
});

/** A layout in which documents are what a test makes them, served over one store: the layer is fetched once. */
async function begin(t: TestContext) {
  const layout = emptyLayout(t);
  const layer = { mediaType: LAYER, digest: addBlob(layout, BLOB), size: BLOB.length };
  const add = (document: unknown): { digest: string; size: number } => {
    const bytes = Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));
    return { digest: addBlob(layout, bytes), size: bytes.length };
  };
  const image = (config: unknown = configOf(), more: Json = {}, configMore: Json = {}): Json => ({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: CONFIG, ...add(config), ...configMore },
    layers: [layer],
    ...more,
  });
  const name = (ref: string, document: Json, mediaType = OCI_MANIFEST): string => {
    const descriptor = { mediaType, ...add(document) };
    nameManifest(layout, ref, descriptor as Parameters<typeof nameManifest>[2]);
    return descriptor.digest;
  };
  const entry = (document: Json, more: Json = {}): Json => ({
    mediaType: OCI_MANIFEST,
    ...add(document),
    ...more,
  });
  const index = (manifests: unknown): Json => ({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  name('it', {});
  const { host, requests } = await startSandbox(t, { layout });
  const options = { store: temporaryDirectory(t), platform: PLATFORM };
  const take = async (ref: string, platform = PLATFORM) => {
    const { result, events } = await pull(`${host}/x:${ref}`, { ...options, platform });
    return { result, told: warnings(events) };
  };
  const fail = (ref: string) => failureOf(pull(`${host}/x:${ref}`, options));
  return { layout, layer, add, image, name, entry, index, host, requests, options, take, fail };
}

test('whatever the media type of a config, it is one of an image when it has DiffIDs', async (t) => {
  const { image, name, take, fail, requests } = await begin(t);
  const types = ['application/octet-stream', 'application/json', 'text/html', '', null, undefined];
  for (const mediaType of [...types, 'text/plain', `${CONFIG.toUpperCase()}; charset=utf-8`]) {
    name('it', image(configOf(), {}, { mediaType }));
    assert.deepEqual((await take('it')).told, [], String(mediaType));
  }
  name('it', image(configOf(), {}, { size: undefined }));
  await take('it');
  for (const config of ['{"name":"a chart"}', '{"rootfs":null}', '{}', '[]', 'no JSON', '']) {
    name('it', image(config, { layers: [] }, { mediaType: 'application/json' }));
    const { code, exitCode, message } = await fail('it');
    assert.deepEqual([code, exitCode], ['unsupported', 8], config);
    assert.match(message, /no container image: its config has media type "application\/json"/);
  }
  const size = 50_000_000;
  for (const more of [{ mediaType: 'application/vnd.cncf.helm.config.v1+json' }, { mediaType: '', size }]) {
    name('it', image(configOf(), {}, more));
    const before = requests.length;
    assert.equal((await fail('it')).exitCode, 8);
    assert.ok(requests.slice(before).every(({ path }) => !path.includes('/blobs/')));
  }
});

test('a config that leaves its platform or the type of its rootfs out is taken for the platform asked for', async (t) => {
  const { image, name, take, fail } = await begin(t);
  const cases: ReadonlyArray<readonly [Json, RegExp | undefined]> = [
    [
      { os: null, architecture: null },
      /does not say its operating system and its architecture; .* linux\/amd64/,
    ],
    [{ os: undefined }, /does not say its operating system;/],
    [{ architecture: '' }, /does not say its architecture;/],
    [{ variant: null }, undefined],
    [{ rootfs: { diff_ids: [DIFF_ID] } }, undefined],
    [{ rootfs: { type: null, diff_ids: [DIFF_ID] } }, undefined],
    [{ os: 'Linux', architecture: 'x86_64' }, undefined],
  ];
  for (const [more, warning] of cases) {
    name('it', image(configOf(more)));
    const { told, result } = await take('it');
    assert.equal(told.length, warning === undefined ? 0 : 1, JSON.stringify(more));
    if (warning !== undefined) assert.match(told[0]!, warning);
    if (warning !== undefined) assert.equal(result.platform, PLATFORM);
  }
  for (const more of [{ os: 7 }, { architecture: [] }, { rootfs: { type: 'files' } }, { rootfs: null }]) {
    name('it', image(configOf(more)));
    assert.equal((await fail('it')).code, 'metadata-malformed', JSON.stringify(more));
  }
});

test('an image without layers may leave the list out', async (t) => {
  const { image, name, take, fail } = await begin(t);
  const empty = configOf({ rootfs: { type: 'layers', diff_ids: [] } });
  for (const config of [empty, configOf({ rootfs: { type: 'layers' } }), configOf({ rootfs: undefined })])
    for (const layers of [[], null, undefined]) {
      name('it', image(config, { layers }));
      assert.deepEqual((await take('it')).result.layers, []);
    }
  name('it', image(configOf(), { layers: null }));
  assert.match((await fail('it')).message, /has 0 layers, its config 1 DiffIDs/);
});

test('media types of manifests and layers count without case and parameters, and generic ones say nothing', async (t) => {
  const { image, name, layer, take, fail } = await begin(t);
  for (const mediaType of [null, '', 'application/json', `${OCI_MANIFEST}; charset=utf-8`, DOCKER_MANIFEST]) {
    name('it', image(configOf(), { mediaType }));
    await take('it');
  }
  const types = [
    'application/vnd.docker.image.rootfs.diff.tar.gzip',
    'application/vnd.docker.image.rootfs.diff.tar+gzip',
    'application/vnd.oci.image.layer.v1.tar+ZSTD; x=y',
    'application/vnd.docker.image.rootfs.diff.tar.zstd',
    'application/tar+gzip',
    'application/octet-stream',
    '',
    null,
    undefined,
  ];
  for (const mediaType of types) {
    name('it', image(configOf(), { layers: [{ ...layer, mediaType, annotations: null, urls: null }] }));
    await take('it');
  }
  for (const mediaType of ['application/x-something', `${LAYER}+encrypted`, 'text/html']) {
    name('it', image(configOf(), { layers: [{ ...layer, mediaType }] }));
    assert.equal((await fail('it')).code, 'unsupported', mediaType);
  }
});

const SHA512 = `sha512:${'a'.repeat(128)}`;
const ABSENT = digestOf('absent');

test('entries of an index that cannot be read take nothing from the others, before and behind them', async (t) => {
  const { image, name, entry, index, take } = await begin(t);
  const good = entry(image(), { platform: { os: 'linux', architecture: 'amd64' } });
  const { platform } = good;
  const bad: unknown[] = [
    { ...good, platform: {} },
    { ...good, platform: 7 },
    { ...good, platform: { os: 'linux', architecture: 'x'.repeat(200) } },
    { ...good, digest: SHA512 },
    { ...good, digest: 'sha256:../../x' },
    { ...good, digest: undefined },
    { ...good, size: 'much' },
    { ...good, mediaType: 'application/x-other' },
    { ...good, mediaType: 'application/vnd.oci.artifact.manifest.v1+json' },
    { ...good, mediaType: 7 },
    { ...good, annotations: [] },
    null,
    'x',
    // These are only known for what they are when they are read.
    { ...good, digest: ABSENT },
    entry({ hello: 1 }, { platform }),
    entry(image(), { platform: { os: 'unknown', architecture: 'unknown' } }),
  ];
  for (const one of bad) {
    const digest = name('it', index([one, good, one]), OCI_INDEX);
    const { result } = await take('it');
    assert.deepEqual([result.digest, result.indexDigest], [good['digest'], digest], JSON.stringify(one));
  }
  for (const more of [{ size: undefined }, { size: null }, { mediaType: '' }, { mediaType: undefined }]) {
    name('it', index([{ ...good, ...more }]), OCI_INDEX);
    await take('it');
  }
});

test('an index of which no entry can be read says why', async (t) => {
  const { image, name, entry, index, fail } = await begin(t);
  const good = entry(image(), { platform: { os: 'linux', architecture: 'amd64' } });
  for (const [more, exitCode, message] of [
    [{ digest: SHA512 }, 8, /manifests\[0\]\.digest is a sha512 digest/],
    [{ digest: undefined }, 6, /manifests\[0\]\.digest is not a sha256 digest/],
    [
      { mediaType: 'application/x-other' },
      8,
      /manifests\[0\] of the image index has media type "application\/x-other"/,
    ],
  ] as const) {
    name('it', index([{ ...good, ...more }]), OCI_INDEX);
    const error = await fail('it');
    assert.equal(error.exitCode, exitCode);
    assert.match(error.message, message);
  }
  const arm = { platform: { os: 'linux', architecture: 'arm64' } };
  name(
    'it',
    index([
      { ...good, digest: SHA512 },
      { ...good, ...arm },
    ]),
    OCI_INDEX,
  );
  const { exitCode, hint } = await fail('it');
  assert.equal(exitCode, 3);
  assert.match(hint, /--platform: linux\/arm64; entries that cannot be read: .*sha512/);
  for (const manifests of [[], null, undefined]) {
    name('it', index(manifests), OCI_INDEX);
    const { code, message } = await fail('it');
    assert.deepEqual([code, /nothing in its index leads to one/.test(message)], ['platform-not-found', true]);
  }
});

test('an index that leads to no image says what is there instead, whether it states platforms or not', async (t) => {
  const { image, name, entry, index, host, options, fail } = await begin(t);
  const linux = { platform: { os: 'linux', architecture: 'amd64' } };
  const none = { platform: { os: 'unknown', architecture: 'unknown' } };
  const nested = (manifests: readonly Json[], more = {}) =>
    entry(index(manifests), { mediaType: OCI_INDEX, ...more });
  const artifact = (mediaType: string, more = {}) => entry(image('{}', {}, { mediaType }), more);
  const helm = 'application/vnd.cncf.helm.config.v1+json';
  const wasm = 'application/vnd.wasm.config.v0+json';
  const other = entry(image(), { mediaType: 'application/vnd.oci.artifact.manifest.v1+json' });
  const schema1 = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
  for (const [manifests, exitCode, said] of [
    [[other], 8, /has media type "application\/vnd\.oci\.artifact\.manifest/],
    [
      [
        { ...other, ...linux },
        { ...other, ...none },
      ],
      8,
      /has media type "application/,
    ],
    [[nested([other], linux)], 8, /has media type "application/],
    [[nested([other])], 8, /has media type "application/],
    [[entry(image(), { ...linux, mediaType: schema1 })], 8, /schema 1 is no longer/],
    [[artifact(helm)], 8, /config has media type "application\/vnd\.cncf\.helm/],
    [[artifact(helm, linux)], 8, /config has media type "application\/vnd\.cncf\.helm/],
    [[artifact(wasm), artifact(helm)], 8, /config has media type "application\/vnd\.wasm/],
    [[artifact(wasm, none), artifact(helm)], 8, /vnd\.cncf\.helm/],
    [[artifact(wasm, { platform: { os: 'wasi', architecture: 'wasm' } })], 3, /--platform: wasi\/wasm$/m],
    [[entry(image(), none)], 3, /has attestations only/],
    [[nested([entry(image(), none)], linux)], 3, /has attestations only/],
    [[nested([])], 3, /nothing in its index leads to one/],
    [[nested([], linux), nested([], linux)], 3, /nothing in its index leads to one/],
  ] as ReadonlyArray<readonly [Json[], number, RegExp]>) {
    name('it', index(manifests), OCI_INDEX);
    const error = await fail('it');
    assert.equal(error.exitCode, exitCode, error.message);
    assert.match(`${error.message}\n${error.hint}`, said);
    assert.doesNotMatch(error.hint, /--platform: linux\/amd64/);
    assert.equal((await failureOf(inspectImage(`${host}/x:it`, options))).exitCode, exitCode);
  }
});

test('entries without a platform are what their configs say, in indexes within the index too', async (t) => {
  const { image, name, entry, index, take, fail, host, options, requests } = await begin(t);
  const arm = image(configOf({ architecture: 'arm64' }));
  const silent = image(configOf({ os: undefined, architecture: undefined }));
  const chart = image('{}', {}, { mediaType: 'application/x-chart' });
  const nested = (...images: Json[]) =>
    entry(index(images.map((one) => entry(one))), { mediaType: OCI_INDEX });
  const both = [entry(chart), entry(silent), entry(arm), entry(image())];
  const cases: ReadonlyArray<readonly [what: string, manifests: Json[], amd64: Json, arm64: Json]> = [
    ['side by side', both, image(), arm],
    ['platform null', both.map((one) => ({ ...one, platform: null })), image(), arm],
    ['nested', [nested(arm, image())], image(), arm],
    ['nested twice', [nested(arm), nested(image())], image(), arm],
    ['one that says nothing', [entry(silent)], silent, silent],
  ];
  for (const [what, manifests, amd64, arm64] of cases) {
    name('it', index(manifests), OCI_INDEX);
    assert.equal((await take('it')).result.digest, entry(amd64)['digest'], what);
    assert.equal((await take('it', 'linux/arm64/v8')).result.digest, entry(arm64)['digest'], what);
  }
  const twin = image(configOf({ created: '2026-01-01T00:00:00Z' }));
  const isZstd = { annotations: { 'io.github.containers.compression.zstd': 'true' } };
  const gzip = entry(image(configOf({ architecture: 'arm', variant: 'v6' })));
  name('it', index([gzip, entry(twin, isZstd), gzip]), OCI_INDEX);
  assert.equal((await take('it')).result.digest, entry(twin)['digest']);
  assert.equal((await take('it', 'linux/arm/v7')).result.digest, gzip['digest']);
  name('it', index([entry(arm), entry(chart)]), OCI_INDEX);
  const error = await fail('it');
  assert.deepEqual([error.code, error.exitCode], ['platform-not-found', 3]);
  assert.match(error.hint, /linux\/arm64/);
  name('it', index([entry(chart)]), OCI_INDEX);
  assert.equal((await fail('it')).code, 'unsupported', 'what is wrong with the only one is told');
  const many = Array.from({ length: 200 }, (_, row) => entry(image(configOf({ architecture: `a${row}` }))));
  name('it', index([...many, entry(image())]), OCI_INDEX);
  const before = requests.length;
  const { hint } = await fail('it');
  assert.equal(hint.split('the image index has more than').length, 2, hint);
  assert.ok(requests.length - before < 140, 'an end');
  const path = temporaryDirectory(t);
  name('it', index(both), OCI_INDEX);
  const copied = await copyImage(`${host}/x:it`, { ...options, destination: { kind: 'layout', path } });
  assert.equal(copied.digest, entry(image())['digest']);
});

test('the index that an image was chosen from is told, from the store too', async (t) => {
  const { image, name, entry, index, host, options } = await begin(t);
  const document = index([entry(image(), { platform: { os: 'linux', architecture: 'amd64' } })]);
  const indexDigest = name('it', document, OCI_INDEX);
  for (const reference of [`${host}/x:it`, `${host}/x@${indexDigest}`]) {
    const { result, events } = await pull(reference, options);
    assert.equal(result.indexDigest, indexDigest);
    const resolved = events.find((event) => event.event === 'resolved');
    assert.ok(resolved?.event === 'resolved' && resolved.indexDigest === indexDigest);
    assert.equal((await pull(reference, { ...options, policy: 'never' })).result.indexDigest, indexDigest);
    assert.equal((await inspectImage(reference, options)).indexDigest, indexDigest);
  }
  const { result } = await pull(`${host}/x@${entry(image())['digest']}`, options);
  assert.equal('indexDigest' in result, false);
});
