import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import type { FaultAction, FaultMatch } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { fixtureBlob, LAYER_DIGEST } from '../support/fixture-layout.js';
import { ask, open } from '../support/http.js';
import { startSandbox } from '../support/sandbox.js';

const LAYER = fixtureBlob(LAYER_DIGEST);
const BLOB_PATH = `/v2/some/name/blobs/${LAYER_DIGEST}`;

function start(t: TestContext, action: FaultAction, match: FaultMatch = {}): Promise<SandboxRegistry> {
  return startSandbox(t, { faults: [{ match, action }] });
}

function range(text: string): { headers: Record<string, string> } {
  return { headers: { Range: `bytes=${text}` } };
}

test('status: the scripted status, headers and body', async (t) => {
  const { origin } = await start(t, { status: 418, headers: { 'X-Tea': 'pot' }, body: 'short' });
  const answer = await ask(origin + BLOB_PATH);
  assert.equal(answer.status, 418);
  assert.equal(answer.headers['x-tea'], 'pot');
  assert.equal(answer.body.toString(), 'short');
  const head = await ask(origin + BLOB_PATH, { method: 'HEAD' });
  assert.deepEqual([head.status, head.headers['content-length']], [418, '5']);
});

test('closeAfterBytes: the connection ends after so many bytes, and the next request succeeds', async (t) => {
  const { origin, requests } = await start(t, { closeAfterBytes: 1000 }, { nth: 1 });
  const cut = await ask(origin + BLOB_PATH, range('100-2999'));
  assert.equal(cut.status, 206);
  assert.equal(cut.headers['content-length'], '2900');
  assert.equal(cut.complete, false);
  assert.ok(cut.body.equals(LAYER.subarray(100, 1100)));
  assert.equal(requests[0]?.sentBytes, 1000);
  assert.equal((await ask(origin + BLOB_PATH)).complete, true);
});

test('closeAfterBytes: a shorter response is complete', async (t) => {
  const { origin } = await start(t, { closeAfterBytes: 1000 });
  assert.equal((await ask(origin + BLOB_PATH, range('0-9'))).complete, true);
});

test('closeAfterBytes 0: no response at all', async (t) => {
  const { origin, requests } = await start(t, { closeAfterBytes: 0 });
  await assert.rejects(ask(origin + BLOB_PATH), { code: 'ECONNRESET' });
  await assert.rejects(ask(origin + BLOB_PATH, { method: 'HEAD' }), { code: 'ECONNRESET' });
  assert.equal(requests[0]?.status, 0);
});

test('drip: the body comes slowly, complete or up to where the connection ends', async (t) => {
  for (const [drip, complete, leastMs] of [
    [{ bytesPerSecond: 1000 }, true, 400],
    [{ bytesPerSecond: 1000, closeAfterBytes: 200 }, false, 200],
  ] as const) {
    const { origin } = await start(t, { drip });
    const started = performance.now();
    const answer = await ask(origin + BLOB_PATH, range('0-399'));
    // The server may send the bytes of its first 20 ms at once.
    assert.ok(performance.now() - started >= leastMs - 50);
    assert.deepEqual([answer.complete, answer.body.length], [complete, leastMs]);
  }
});

test('stallAfterBytes: so many bytes, then silence on an open connection', async (t) => {
  const { origin } = await start(t, { stallAfterBytes: 1000 }, { nth: 1 });
  const response = await open(origin + BLOB_PATH);
  let received = 0;
  response.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  while (received < 1000) await once(response, 'data');
  // Another whole blob goes by; the stalled one had all the time to go on.
  assert.equal((await ask(origin + BLOB_PATH)).complete, true);
  assert.equal(received, 1000);
  assert.equal(response.destroyed, false);
  response.destroy();
});

test('stallAfterBytes 0: no response, and close() ends the connection', async (t) => {
  const { origin, requests, close } = await start(t, { stallAfterBytes: 0 }, { nth: 1 });
  const stalled = assert.rejects(ask(origin + BLOB_PATH), { code: 'ECONNRESET' });
  while (requests.length === 0) await new Promise(setImmediate);
  assert.equal((await ask(origin + BLOB_PATH)).complete, true);
  assert.equal(requests[0]?.status, 0);
  await close();
  await stalled;
});

test('flipByteAt: one byte of the blob is wrong in every response', async (t) => {
  const { origin } = await start(t, { flipByteAt: 5000 });
  const wrong = Buffer.from(LAYER);
  wrong[5000]! ^= 0xff;
  assert.ok((await ask(origin + BLOB_PATH)).body.equals(wrong));
  const part = await ask(origin + BLOB_PATH, range('4990-5009'));
  assert.ok(part.body.equals(wrong.subarray(4990, 5010)));
  const besides = await ask(origin + BLOB_PATH, range('5001-5009'));
  assert.ok(besides.body.equals(LAYER.subarray(5001, 5010)));
});

test('ignoreRange: 200 and the full blob', async (t) => {
  const { origin, requests } = await start(t, { ignoreRange: true });
  const answer = await ask(origin + BLOB_PATH, range('5-9'));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['content-range'], undefined);
  assert.ok(answer.body.equals(LAYER));
  assert.deepEqual([requests[0]?.start, requests[0]?.end], [5, 10]);
});

test('shortRange: the beginning of a range, with a header that states it', async (t) => {
  const { origin } = await start(t, { shortRange: 3 });
  for (const [asked, got] of [
    ['5-9', '5-7'],
    ['5-6', '5-6'],
  ] as const) {
    const { status, headers, body } = await ask(origin + BLOB_PATH, range(asked));
    const [first, last] = got.split('-').map(Number);
    assert.deepEqual([status, body.length], [206, last! - first! + 1]);
    assert.match(String(headers['content-range']), new RegExp(`^bytes ${got}/`));
  }
});

test('wrongContentRange: the right bytes under a wrong header', async (t) => {
  const { origin } = await start(t, { wrongContentRange: 'bytes 6-10/99' });
  const answer = await ask(origin + BLOB_PATH, range('5-9'));
  assert.equal(answer.status, 206);
  assert.equal(answer.headers['content-range'], 'bytes 6-10/99');
  assert.ok(answer.body.equals(LAYER.subarray(5, 10)));
});

test('retryAfter: the status with its header', async (t) => {
  for (const status of [429, 503] as const) {
    const { origin } = await start(t, { retryAfter: { status, seconds: 7 } });
    const answer = await ask(origin + BLOB_PATH);
    assert.deepEqual([answer.status, answer.headers['retry-after']], [status, '7']);
  }
});

test('redirect: a blob is on another origin under a signed URL that takes ranges and no Authorization', async (t) => {
  const { origin, requests } = await start(t, { redirect: {} });
  assert.equal((await ask(`${origin}/v2/a/manifests/chunked-v1`)).status, 200);
  const { status, headers } = await ask(origin + BLOB_PATH);
  const location = String(headers['location']);
  assert.equal(status, 307);
  assert.notEqual(new URL(location).origin, origin);
  const part = await ask(location, range('5-9'));
  assert.equal(part.status, 206);
  assert.ok(part.body.equals(LAYER.subarray(5, 10)));
  assert.equal((await ask(location, { headers: { Authorization: 'Bearer x' } })).status, 400);
  assert.equal((await ask(location.replace(/expires=\d/, 'expires=9'))).status, 403);
  assert.equal((await ask(location.replace(/signature=.*/, 'signature='))).status, 403);
  assert.equal((await ask(location.split('?')[0] ?? '')).status, 403);
  assert.ok(requests.every(({ path }) => !path.includes('signature')));
});

test('redirect: a signed URL expires', async (t) => {
  const { origin } = await start(t, { redirect: { expiresAfterMs: 0 } });
  const { headers } = await ask(origin + BLOB_PATH);
  assert.equal((await ask(String(headers['location']))).status, 403);
});

test('redirect: a signed URL expires after so many requests, each for itself', async (t) => {
  const { origin } = await start(t, { redirect: { expiresAfterRequests: 2 } });
  const statuses = async (location: string, count: number) => {
    const answers = [];
    for (let i = 0; i < count; i++) answers.push((await ask(location, range('5-9'))).status);
    return answers;
  };
  const [first, second] = await Promise.all(
    [1, 2].map(async () => String((await ask(origin + BLOB_PATH)).headers['location'])),
  );
  // One that nobody may have does not count: the number is signed too.
  assert.equal((await ask(first!.replace(/number=\d/, 'number=9'))).status, 403);
  assert.deepEqual(await statuses(first!, 4), [206, 206, 403, 403]);
  assert.deepEqual(await statuses(second!, 3), [206, 206, 403]);
});

test('redirect: later rules apply on the other origin', async (t) => {
  const faults = [
    { match: { path: LAYER_DIGEST }, action: { redirect: {} } },
    { match: { path: '/^.signed/' }, action: { closeAfterBytes: 10 } },
  ];
  const { origin } = await startSandbox(t, { faults });
  const { headers } = await ask(origin + BLOB_PATH);
  const cut = await ask(String(headers['location']));
  assert.deepEqual([cut.complete, cut.body.length], [false, 10]);
});

test('challenge: 401 until the request carries a token, which /token issues', async (t) => {
  const { origin } = await start(t, { challenge: {} }, { path: 'blobs' });
  assert.equal((await ask(`${origin}/v2/a/manifests/chunked-v1`)).status, 200);
  const refused = await ask(origin + BLOB_PATH);
  assert.equal(refused.status, 401);
  const [, realm, service, scope] =
    /^Bearer realm="(.+)",service="(.+)",scope="(.+)"$/.exec(String(refused.headers['www-authenticate'])) ??
    [];
  const answer = await ask(`${realm}?service=${service}&scope=${scope}`);
  const { token } = JSON.parse(answer.body.toString());
  const headers = { Authorization: `Bearer ${token}` };
  assert.equal((await ask(origin + BLOB_PATH, { headers })).status, 200);
});

test('challenge: always refuses even a good token, and an expired one counts as none', async (t) => {
  for (const challenge of [{ always: true }, { expiresAfterMs: 0 }]) {
    const { origin } = await start(t, { challenge });
    const answer = await ask(`${origin}/token?scope=repository:some/name:pull`);
    const { token } = JSON.parse(answer.body.toString());
    const refused = await ask(origin + BLOB_PATH, { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(refused.status, 401);
    assert.match(String(refused.headers['www-authenticate']), /error="invalid_token"/);
  }
});
