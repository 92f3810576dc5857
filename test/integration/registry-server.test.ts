import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { PullError } from '../../src/format/error.js';
import { startRegistry } from '../../src/sandbox/registry-server.js';
import { FIXTURE_LAYOUT, fixtureBlob, LAYER_DIGEST } from '../support/fixture-layout.js';
import { ask } from '../support/http.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const V1_DIGEST = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const LAYER = fixtureBlob(LAYER_DIGEST);
const BLOB_PATH = `/v2/some/name/blobs/${LAYER_DIGEST}`;

/** Puts a blob into a layout and returns its digest. */
function addBlob(layout: string, content: string): string {
  const hex = createHash('sha256').update(content).digest('hex');
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
  writeFileSync(join(layout, 'blobs/sha256', hex), content);
  return `sha256:${hex}`;
}

function writeIndex(layout: string, tags: Readonly<Record<string, string>>): void {
  const manifests = Object.entries(tags).map(([tag, digest]) => ({
    digest,
    annotations: { 'org.opencontainers.image.ref.name': tag },
  }));
  writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
}

test('the base path says that this is a registry', async (t) => {
  const { origin, host } = await startSandbox(t);
  assert.equal(origin, `http://${host}`);
  assert.match(host, /^127\.0\.0\.1:\d+$/);
  const answer = await ask(`${origin}/v2/`);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['docker-distribution-api-version'], 'registry/2.0');
});

test('a manifest comes by tag and by digest, under any name, with type, digest and length', async (t) => {
  const { origin } = await startSandbox(t);
  for (const path of ['a/manifests/chunked-v1', `b/c-d/e__f/manifests/${V1_DIGEST}`]) {
    for (const method of ['GET', 'HEAD']) {
      const answer = await ask(`${origin}/v2/${path}`, { method });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['content-type'], OCI_MANIFEST);
      assert.equal(answer.headers['docker-content-digest'], V1_DIGEST);
      assert.equal(answer.headers['content-length'], String(fixtureBlob(V1_DIGEST).length));
      assert.deepEqual(answer.body, method === 'HEAD' ? Buffer.alloc(0) : fixtureBlob(V1_DIGEST));
    }
  }
});

test('a blob is served in full, and HEAD states its length', async (t) => {
  const { origin } = await startSandbox(t);
  const whole = await ask(origin + BLOB_PATH);
  assert.equal(whole.status, 200);
  assert.equal(whole.headers['docker-content-digest'], LAYER_DIGEST);
  assert.equal(whole.headers['accept-ranges'], 'bytes');
  assert.ok(whole.body.equals(LAYER));
  const head = await ask(origin + BLOB_PATH, { method: 'HEAD' });
  assert.equal(head.headers['content-length'], String(LAYER.length));
  assert.equal(head.body.length, 0);
  const encoded = await ask(origin + BLOB_PATH.replace(':', '%3A'), { method: 'HEAD' });
  assert.equal(encoded.status, 200);
});

test('a single range comes as 206 with its Content-Range', async (t) => {
  const { origin } = await startSandbox(t);
  const size = LAYER.length;
  for (const [range, from, to] of [
    ['100-199', 100, 200],
    [`${size - 5}-`, size - 5, size],
    ['-7', size - 7, size],
    [`10-${size + 10}`, 10, size],
  ] as const) {
    const answer = await ask(origin + BLOB_PATH, { headers: { Range: `bytes=${range}` } });
    assert.equal(answer.status, 206);
    assert.equal(answer.headers['content-range'], `bytes ${from}-${to - 1}/${size}`);
    assert.ok(answer.body.equals(LAYER.subarray(from, to)), range);
  }
});

test('a range outside the blob is 416, several ranges or a stale If-Range get the full blob', async (t) => {
  const { origin } = await startSandbox(t);
  const outside = await ask(origin + BLOB_PATH, { headers: { Range: `bytes=${LAYER.length}-` } });
  assert.equal(outside.status, 416);
  assert.equal(outside.headers['content-range'], `bytes */${LAYER.length}`);
  for (const headers of [{ Range: 'bytes=0-1,3-4' }, { Range: 'bytes=0-1', 'If-Range': '"other"' }]) {
    const answer = await ask(origin + BLOB_PATH, { headers });
    assert.equal(answer.status, 200);
    assert.equal(answer.body.length, LAYER.length);
  }
  const fresh = await ask(origin + BLOB_PATH, {
    headers: { Range: 'bytes=0-1', 'If-Range': `"${LAYER_DIGEST}"` },
  });
  assert.equal(fresh.status, 206);
});

test('what is absent or not allowed is refused with the error codes of the spec', async (t) => {
  const { origin } = await startSandbox(t);
  const absent = `sha256:${'0'.repeat(64)}`;
  for (const [method, path, status, code] of [
    ['GET', '/v2/a/manifests/nothing', 404, 'MANIFEST_UNKNOWN'],
    ['GET', `/v2/a/manifests/${absent}`, 404, 'MANIFEST_UNKNOWN'],
    ['GET', `/v2/a/manifests/${LAYER_DIGEST}`, 404, 'MANIFEST_UNKNOWN'],
    ['GET', '/v2/a/manifests/sha256:12', 400, 'DIGEST_INVALID'],
    ['GET', `/v2/a/blobs/${absent}`, 404, 'BLOB_UNKNOWN'],
    ['GET', '/v2/a/blobs/sha256:..%2f..%2findex.json', 404, 'NAME_UNKNOWN'],
    ['GET', '/v2/a/blobs/index.json', 400, 'DIGEST_INVALID'],
    ['GET', '/v2/UPPER/tags/list', 400, 'NAME_INVALID'],
    ['GET', `/v2/${'a'.repeat(256)}/tags/list`, 400, 'NAME_INVALID'],
    ['GET', '/elsewhere', 404, 'NAME_UNKNOWN'],
    ['POST', '/v2/a/blobs/uploads/', 405, 'UNSUPPORTED'],
    ['DELETE', `/v2/a/manifests/${V1_DIGEST}`, 405, 'UNSUPPORTED'],
  ] as const) {
    const answer = await ask(origin + path, { method });
    const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string }[] };
    assert.deepEqual([answer.status, errors[0]?.code], [status, code], path);
  }
});

test('tags are listed in order, page by page when requested', async (t) => {
  const { origin } = await startSandbox(t);
  const all = await ask(`${origin}/v2/a/b/tags/list`);
  assert.deepEqual(JSON.parse(all.body.toString()), { name: 'a/b', tags: ['chunked-v1', 'chunked-v2'] });
  const first = await ask(`${origin}/v2/a/b/tags/list?n=1`);
  assert.deepEqual(JSON.parse(first.body.toString()).tags, ['chunked-v1']);
  const next = /^<(.+)>; rel="next"$/.exec(String(first.headers['link']))?.[1];
  const second = await ask(`${origin}${next}`);
  assert.deepEqual(JSON.parse(second.body.toString()).tags, ['chunked-v2']);
  assert.equal(second.headers['link'], undefined);
});

test('Docker manifests, indexes without a media type and blobs that are no manifest are distinguished', async (t) => {
  const layout = temporaryDirectory(t);
  const docker = 'application/vnd.docker.distribution.manifest.v2+json';
  const tags = {
    docker: addBlob(layout, JSON.stringify({ schemaVersion: 2, mediaType: docker, layers: [] })),
    index: addBlob(layout, JSON.stringify({ schemaVersion: 2, manifests: [] })),
    plain: addBlob(layout, JSON.stringify({ schemaVersion: 2, layers: [] })),
    one: addBlob(layout, JSON.stringify({ schemaVersion: 1 })),
    hostile: addBlob(layout, JSON.stringify({ schemaVersion: 2, mediaType: 'a/b\r\nX: y' })),
    config: addBlob(layout, JSON.stringify({ rootfs: {} })),
  };
  writeIndex(layout, tags);
  const { origin } = await startSandbox(t, { layout });
  const types: Record<string, unknown> = {};
  for (const tag of Object.keys(tags)) {
    const { status, headers } = await ask(`${origin}/v2/a/manifests/${tag}`);
    types[tag] = status === 200 ? headers['content-type'] : status;
  }
  assert.deepEqual(types, {
    docker,
    index: 'application/vnd.oci.image.index.v1+json',
    plain: OCI_MANIFEST,
    one: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
    hostile: OCI_MANIFEST,
    config: 404,
  });
});

test('index.json is read again when it changes, and the last good one serves while it is half-written', async (t) => {
  const layout = temporaryDirectory(t);
  const digest = addBlob(layout, JSON.stringify({ schemaVersion: 2, layers: [] }));
  writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [{ digest }] }));
  const { origin } = await startSandbox(t, { layout });
  const statusOf = async (tag: string): Promise<number> => {
    return (await ask(`${origin}/v2/a/manifests/${tag}`)).status;
  };
  assert.deepEqual([await statusOf('latest'), await statusOf('new')], [200, 404]);
  writeIndex(layout, { new: digest });
  assert.deepEqual([await statusOf('latest'), await statusOf('new')], [404, 200]);
  writeFileSync(join(layout, 'index.json'), '{"schemaVersion": 2, "mani');
  assert.equal(await statusOf('new'), 200);
});

test('a directory that is no layout is refused, as is a port that is taken', async (t) => {
  const layout = temporaryDirectory(t);
  const isMalformedOption = (error: unknown): boolean =>
    error instanceof PullError && error.code === 'option-malformed';
  await assert.rejects(startRegistry({ layout }), isMalformedOption);
  const { host } = await startSandbox(t);
  const port = Number(host.split(':')[1]);
  await assert.rejects(startRegistry({ layout: FIXTURE_LAYOUT, port }), isMalformedOption);
});

test('connections are kept and requests recorded', async (t) => {
  const seen: unknown[] = [];
  const registry = await startSandbox(t, { onRequest: (record) => seen.push(record) });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  await ask(`${registry.origin}/v2/?secret=1`, { agent });
  await ask(registry.origin + BLOB_PATH, { agent, headers: { Range: 'bytes=5-14' } });
  await ask(`${registry.origin}/v2/a/manifests/no`, { method: 'HEAD' });
  // The server learns that an answer is over after the client does.
  while (seen.length < 3) await new Promise(setImmediate);
  const common = { start: null, end: null, sentBytes: 0 };
  assert.deepEqual(registry.requests, [
    { ...common, method: 'GET', path: '/v2/', status: 200, sentBytes: 2, connection: 1 },
    { method: 'GET', path: BLOB_PATH, status: 206, start: 5, end: 15, sentBytes: 10, connection: 1 },
    { ...common, method: 'HEAD', path: '/v2/a/manifests/no', status: 404, connection: 2 },
  ]);
  assert.deepEqual(seen, registry.requests);
});

/** How long `action` took. A test may only ask that it was not too soon: a busy machine makes things late. */
async function elapsedMs(action: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await action();
  return performance.now() - startedMs;
}

test('no response comes sooner than the latency', async (t) => {
  const { origin } = await startSandbox(t, { latencyMs: 60 });
  for (const path of ['/v2/', '/v2/a/manifests/nothing', BLOB_PATH]) {
    // A timer may fire a millisecond early.
    assert.ok((await elapsedMs(() => ask(origin + path))) >= 59, path);
  }
});

test('a shaped link delivers the same bytes, no sooner than its rate allows', async (t) => {
  for (const rate of [{ ratePerConnectionBytes: 4_000_000 }, { rateBytes: 4_000_000 }]) {
    const { origin } = await startSandbox(t, rate);
    const tookMs = await elapsedMs(async () => assert.ok((await ask(origin + BLOB_PATH)).body.equals(LAYER)));
    // 378 kB at 4 MB/s are 94 ms, of which a link may catch up 20.
    assert.ok(tookMs >= 70, `${tookMs} ms`);
  }
});
