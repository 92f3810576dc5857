import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { ImageInspection } from '../../src/api/pull.js';
import { DIALECT_LAYOUT, FORMATS_LAYOUT } from '../support/fixture-layout.js';
import { emptyLayout, nameImage, noise, tarOf } from '../support/layout.js';
import { ZPULL } from '../support/programs.js';
import { layerAsks } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { answerRange, startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

interface Ending {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function zpull(store: string, ...args: string[]): Promise<Ending> {
  const child = spawn(process.execPath, [...ZPULL, ...args, '--store', store], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

/** What a command that succeeds prints as JSON. */
async function json<T>(store: string, ...args: string[]): Promise<T> {
  const { exitCode, stdout, stderr } = await zpull(store, '--json', '-q', ...args);
  assert.deepEqual([exitCode, stderr], [0, ''], stdout);
  return JSON.parse(stdout) as T;
}

interface PullJson {
  readonly layers: ReadonlyArray<{
    readonly format: string;
    readonly requests: number;
    readonly fetchedBytes: number;
  }>;
  readonly fetchedBytes: number;
  readonly requests: number;
}

for (const [layout, ref, format, reason] of [
  [FORMATS_LAYOUT, 'gzip', 'gzip', /^media type .*\+gzip$/],
  [
    DIALECT_LAYOUT,
    'old',
    'zstd:chunked-no-tarsplit',
    /^annotations io\.containers\.zstd-chunked\.\* without tar-split$/,
  ],
  [DIALECT_LAYOUT, 'estargz', 'estargz', /^annotation containerd\.io.*, footer$/],
] as const) {
  test(`${ref} is inspected and planned, and a pull does what was planned`, async (t) => {
    const registry = await startSandbox(t, { layout });
    const image = `${registry.host}/x:${ref}`;
    const store = temporaryDirectory(t);
    const inspected = await json<ImageInspection>(store, 'inspect', image);
    assert.ok(inspected.layers.length > 0);
    for (const layer of inspected.layers) {
      assert.deepEqual([layer.format, layer.held], [format, false]);
      assert.match(layer.reason, reason);
      assert.equal(layer.entries !== undefined, format !== 'gzip');
    }
    assert.ok((inspected.config as { rootfs?: object }).rootfs !== undefined);
    const asked = layerAsks(registry).length;
    assert.equal(asked > 0, format === 'estargz' || format.startsWith('zstd'), 'only metadata is read');

    const plan = await json<ImageInspection>(store, 'plan', image);
    assert.ok(
      ![plan, ...plan.layers].some((part) => Object.hasOwn(part, 'config') || Object.hasOwn(part, 'reason')),
    );
    const pulled = await json<PullJson>(store, image);
    assert.deepEqual(
      pulled.layers.map((layer) => layer.format),
      plan.layers.map((layer) => layer.format),
    );
    const metadataAsks = pulled.requests - plan.requests;
    assert.ok(metadataAsks >= 0 && metadataAsks <= plan.layers.length, `${metadataAsks} for metadata`);
    if (format === 'gzip') {
      const blobBytes = plan.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
      assert.deepEqual([plan.fetchBytes, pulled.fetchedBytes, metadataAsks], [blobBytes, blobBytes, 0]);
      assert.ok(plan.layers.every((layer) => layer.tarBytes === null));
    }

    // Now everything is there: nothing is asked for but the manifest, and with "never" not even that.
    const asks = registry.requests.length;
    const held = await json<ImageInspection>(store, 'plan', image, '--policy', 'never');
    assert.equal(registry.requests.length, asks);
    assert.deepEqual([held.fetchBytes, held.requests, held.digest], [0, 0, plan.digest]);
    assert.ok(held.layers.every((layer) => layer.held && layer.reuseBytes === layer.tarBytes));
    const shown = await zpull(store, 'inspect', image, '--policy', 'never');
    assert.equal(shown.exitCode, 0, shown.stderr);
    assert.equal(shown.stdout.match(/ all /g)?.length, plan.layers.length, shown.stdout);
  });
}

test('inspect and plan as text are tables on stdout, with a row a layer and the platforms of the index', async (t) => {
  const { host } = await startSandbox(t, { layout: FORMATS_LAYOUT });
  const store = temporaryDirectory(t);
  const image = `${host}/x:index`;
  const inspected = await zpull(store, 'inspect', `docker://${image}`, '--platform', 'linux/arm64', '-q');
  assert.deepEqual([inspected.exitCode, inspected.stderr], [0, '']);
  const [head = '', table = ''] = inspected.stdout.split('\n\n');
  assert.match(head, new RegExp(`^image +${host}/x:index$`, 'm'));
  assert.match(head, /^digest +sha256:b800a8518708/m);
  assert.match(
    head,
    /^in the index +linux\/amd64 sha256:27bcbe377b34\w+\n +linux\/arm64 sha256:b800a8518708\w+\n/m,
  );
  assert.match(head, /^layers +3 layers$/m);
  const rows = table.trimEnd().split('\n');
  assert.match(rows[0] ?? '', /^layer +format +size +tar +entries +in store +because of$/i);
  assert.equal(rows.length, 4);
  assert.match(
    rows[1] ?? '',
    /^f6e40a5c281e +tar +1\.5 MB .*media type application\/vnd\.oci\.image\.layer\.v1\.tar$/,
  );

  const planned = await zpull(store, 'plan', image, '--platform', 'linux/amd64', '-q');
  assert.equal(planned.exitCode, 0, planned.stderr);
  const lines = planned.stdout.trimEnd().split('\n');
  assert.match(lines[0] ?? '', /^layer +format +size +fetch +reuse +resume +requests$/i);
  assert.equal(lines.length, 5);
  assert.match(lines[1] ?? '', /^fef0c9cf19e3 +zstd:chunked +378\.4 kB +\d/);
  assert.match(lines[4] ?? '', /^all /);
});

test('an image that is not there is not found by inspect and plan, and one that is not in the store by "never"', async (t) => {
  const { host } = await startSandbox(t, { layout: FORMATS_LAYOUT });
  const store = temporaryDirectory(t);
  for (const command of ['inspect', 'plan']) {
    for (const more of [[`${host}/x:none`], [`${host}/x:gzip`, '--policy', 'never']]) {
      const { exitCode, stdout, stderr } = await zpull(store, command, ...more);
      assert.deepEqual([exitCode, stdout], [3, ''], stderr);
      assert.match(stderr, /^zpull: .*\nhint: .+\n$/m);
      const asJson = await zpull(store, command, '--json', ...more);
      assert.equal((JSON.parse(asJson.stdout) as { error: { code: string } }).error.code, 'image-not-found');
    }
  }
});

test('a foreign layer ends a pull and a plan with exit code 8 until --allow-foreign', async (t) => {
  const tar = tarOf({ theirs: noise(1, 10_000) });
  const blob = gzipSync(tar);
  const elsewhere = await startServer((request, response) => answerRange(request, response, blob));
  t.after(() => elsewhere.close());
  const layout = emptyLayout(t);
  const layer = {
    mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    digest: digestOf(blob),
    size: blob.length,
    urls: [`${elsewhere.origin}/theirs`],
  };
  nameImage(layout, 'it', [layer], [digestOf(tar)]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  for (const command of ['pull', 'plan']) {
    const { exitCode, stdout, stderr } = await zpull(store, command, `${host}/x:it`);
    assert.deepEqual([exitCode, stdout], [8, ''], stderr);
    assert.match(stderr, /\nhint: .*--allow-foreign/);
  }
  const pulled = await json<PullJson>(store, `${host}/x:it`, '--allow-foreign');
  assert.deepEqual(
    pulled.layers.map(({ format, requests, fetchedBytes }) => [format, requests, fetchedBytes]),
    [['gzip', 1, blob.length]],
  );
  // It is in the store now: nobody has to be trusted any more.
  const again = await json<PullJson>(store, `${host}/x:it`);
  assert.deepEqual([again.requests, elsewhere.requests.length], [0, 1]);
});
