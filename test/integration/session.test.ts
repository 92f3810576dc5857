/** How the main thread asks for a manifest and a config. Elsewhere: tokens (session-tokens), credentials and odd answers. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { digestOfBytes } from '../../src/format/digest.js';
import { MAX_CONFIG_BYTES } from '../../src/format/image-config.js';
import { createCredentials } from '../../src/registry/credentials.js';
import { createMirroredSession } from '../../src/registry/mirrored-session.js';
import type { FaultAction, FaultMatch } from '../../src/sandbox/faults.js';
import { NEEDS_OPENSSL } from '../support/certificate.js';
import { fixtureBlob, MANIFEST_DIGEST } from '../support/fixture-layout.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { sessionOptions, startSession } from '../support/session.js';
import { tlsFront } from '../support/tls-front.js';

const TAG = 'chunked-v1';
const MANIFEST = fixtureBlob(MANIFEST_DIGEST);
const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const { config: CONFIG } = JSON.parse(MANIFEST.toString());
const GONE = '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}';

/** A registry whose n-th request gets the n-th of these answers; undefined is the right one, as are all that follow. */
function answering(t: TestContext, actions: readonly (FaultAction | undefined)[]) {
  const faults = actions.flatMap((action, i) => (action ? [{ match: { nth: i + 1 }, action }] : []));
  return startSandbox(t, { faults });
}

function always(t: TestContext, action: FaultAction, match: FaultMatch = {}) {
  return startSandbox(t, { faults: [{ match, action }] });
}

test('a manifest comes with its bytes and its type, and its bytes are counted', async (t) => {
  const { host, origin, requests } = await always(t, {
    withHeaders: { 'Content-Type': `${TYPE.toUpperCase()} ; charset=utf-8` },
  });
  const { session, reports } = startSession(t, host);
  assert.deepEqual(await session.getManifest(TAG), { bytes: MANIFEST, mediaType: TYPE });
  assert.equal(reports.receivedBytes, MANIFEST.length);
  assert.equal(requests[0]?.path, `/v2/team/app/manifests/${TAG}`);
  assert.equal(session.origin, origin);
  assert.equal(session.blobUrl(CONFIG.digest), `${origin}/v2/team/app/blobs/${CONFIG.digest}`);
});

test('a manifest by digest that is wrong is requested once more, and no third time', async (t) => {
  const once = await answering(t, [{ flipByteAt: 10 }]);
  const { session, reports } = startSession(t, once.host);
  assert.deepEqual((await session.getManifest(MANIFEST_DIGEST)).bytes, MANIFEST);
  assert.deepEqual(reports.misses, []);
  const wrong = await always(t, { flipByteAt: 10 });
  const error = await failureOf(startSession(t, wrong.host).session.getManifest(MANIFEST_DIGEST));
  assert.equal(error.code, 'digest-mismatch');
  assert.ok(error.message.includes(`manifest ${MANIFEST_DIGEST}`), error.message);
  assert.deepEqual([once.requests.length, wrong.requests.length], [2, 2]);
});

test('a config is proven by its digest and its length', async (t) => {
  const { host } = await startSandbox(t);
  const { session } = startSession(t, host);
  const bytes = await session.getBlob(CONFIG.digest, CONFIG.size);
  assert.deepEqual(bytes, fixtureBlob(CONFIG.digest));
  for (const [sizeBytes, code, words] of [
    [CONFIG.size - 1, 'digest-mismatch', /more bytes/],
    [CONFIG.size + 1, 'metadata-malformed', new RegExp(`has ${CONFIG.size} bytes`)],
    [MAX_CONFIG_BYTES + 1, 'metadata-malformed', /between 0 and 4194304/],
  ] as const) {
    const error = await failureOf(session.getBlob(CONFIG.digest, sizeBytes));
    assert.equal(error.code, code);
    assert.match(error.message, words);
  }
});

/** What ends a question: the answer, the code, words of the message, and how many requests it took. */
const REFUSALS: readonly (readonly [FaultAction, string, RegExp, number])[] = [
  // Whoever has no such image is asked whether it has it in schema 1.
  [{ status: 404, body: GONE }, 'image-not-found', /has no image team\/app:v1; it says "no such tag"$/, 2],
  [{ status: 403 }, 'unauthorized', /denies access to team\/app/, 1],
  [{ status: 401 }, 'unauthorized', /requires a login/, 1],
  [{ status: 418 }, 'answer-unexpected', /answered 418/, 1],
  [{ status: 302, headers: { Location: '/v2/?sig=secret' } }, 'redirect-refused', /more than 5 times/, 6],
  [{ status: 200, body: 'x'.repeat(2 ** 22 + 1) }, 'metadata-malformed', /larger than 4 MiB/, 1],
  [{ stallAfterBytes: 5 }, 'network-hopeless', /sent nothing for too long/, 1],
];

for (const [action, code, words, requests] of REFUSALS) {
  test(`a manifest is given up with ${code}: ${words.source}`, async (t) => {
    const registry = await always(t, action);
    const { session } = startSession(t, registry.host, { idleTimeoutMs: 150, answerTimeoutMs: 60_000 });
    // A right answer that stalls needs a tag that there is.
    const error = await failureOf(session.getManifest('status' in action ? 'v1' : TAG));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    assert.doesNotMatch(`${error.message} ${error.hint}`, /secret/);
    assert.equal(registry.requests.length, requests);
  });
}

test('a missing config is reported as a missing blob', async (t) => {
  const { host } = await startSandbox(t);
  const error = await failureOf(startSession(t, host).session.getBlob(digestOfBytes(Buffer.alloc(32)), 5));
  assert.equal(error.code, 'blob-not-found');
  assert.match(error.message, /has no blob sha256/);
});

async function assertMisses(t: TestContext): Promise<void> {
  const silent = { stallAfterBytes: 0 };
  const faults = [{ status: 502 }, { closeAfterBytes: 4 }, { status: 408 }, silent, undefined, silent];
  const { host, requests } = await answering(t, faults);
  const { session, reports } = startSession(t, host, { answerTimeoutMs: 800 }, 5);
  await session.getManifest(TAG);
  await session.getManifest(TAG);
  assert.deepEqual(reports.misses, [
    `${host} answers 502`,
    `${host} broke off the connection`,
    `${host} answers 408`,
    `${host} did not begin to answer in time`,
    `${host} did not begin to answer in time`,
  ]);
  assert.equal(reports.receivedBytes, 4 + 2 * MANIFEST.length);
  assert.equal(requests[5]!.connection, requests[4]!.connection);
}

async function assertNoSilence(t: TestContext): Promise<void> {
  const { host } = await always(t, { drip: { bytesPerSecond: 0.8 * MANIFEST.length } });
  const { session } = startSession(t, host, { idleTimeoutMs: 800 });
  assert.deepEqual((await session.getManifest(TAG)).bytes, MANIFEST);
}

test('of slow responses', { concurrency: true }, async (t) => {
  await Promise.all([
    t.test(
      'failures are misses, of the server and of the network, on a new connection and on a kept one',
      assertMisses,
    ),
    t.test('a slow body is none', assertNoSilence),
  ]);
});

test('a request that dies on a reused connection is repeated on a new one without a miss', async (t) => {
  const layout = { latencyMs: 20, faults: [{ match: { nth: 3 }, action: { closeAfterBytes: 0 } }] };
  const { host, requests } = await startSandbox(t, layout);
  const { session, reports } = startSession(t, host);
  await Promise.all([session.getManifest(TAG), session.getManifest(TAG)]);
  await session.getManifest(TAG);
  assert.deepEqual(reports.misses, []);
  const [one, other, died, repeated] = requests.map(({ connection }) => connection);
  assert.notEqual(one, other, 'two connections are kept');
  assert.ok(died === one || died === other);
  assert.equal(repeated, 3);
});

test('a host that has answered in http is not tried in https afterwards', async (t) => {
  const { host } = await answering(t, [undefined, { status: 400 }]);
  const { session, reports } = startSession(t, host);
  await session.getManifest(TAG);
  const error = await failureOf(session.getManifest(TAG));
  assert.equal(error.code, 'answer-unexpected');
  assert.match(error.message, /answered 400/);
  assert.equal(reports.lines.length, 2);
});

test('a loopback host with TLS is found, and its certificate has to be trusted', NEEDS_OPENSSL, async (t) => {
  const host = await tlsFront(t, (await startSandbox(t)).host);
  const found = startSession(t, host, { tlsVerify: false });
  await found.session.getManifest(TAG);
  assert.equal(found.session.origin, `https://${host}`);
  const { session, reports } = startSession(t, host, {}, 5);
  const error = await failureOf(session.getManifest(TAG));
  assert.equal(error.code, 'network-hopeless');
  assert.match(error.message, /certificate of .* is not trusted/);
  assert.deepEqual([...found.reports.misses, ...reports.misses], []);
});

test('each request is logged, a retry with its reason', async (t) => {
  const storage = await startSandbox(t);
  const faults = [
    { match: { path: TAG, nth: 2 }, action: { status: 429 } },
    { match: { path: TAG, nth: 3 }, action: { status: 502, body: GONE } },
    {
      match: { path: TAG, nth: 4 },
      action: { status: 307, headers: { Location: `${storage.origin}/v2/a/manifests/${TAG}?sig=secret` } },
    },
  ];
  const registry = await startSandbox(t, { faults, requireToken: {} });
  t.mock.method(Math, 'random', () => 0.001);
  const { session, reports } = startSession(t, registry.host, {}, 1);
  await session.getManifest(TAG);
  const lines = reports.lines.map((line) =>
    line
      .replaceAll(registry.host, 'registry')
      .replaceAll(storage.host, 'storage')
      .replace(/, \d+ bytes, \d+ ms/, ''),
  );
  assert.deepEqual(lines, [
    `GET registry/v2/team/app/manifests/${TAG}: 401`,
    'GET registry/token: 200',
    'registry answers 401; asking again with another Authorization',
    `GET registry/v2/team/app/manifests/${TAG}: 429; again, as registry asks to wait 0.0 s`,
    `GET registry/v2/team/app/manifests/${TAG}: 502; again, as registry answers 502`,
    `GET registry/v2/team/app/manifests/${TAG}: 307`,
    `GET storage/v2/a/manifests/${TAG}: 200`,
  ]);
});

test('a closed session does not wait', async (t) => {
  const { host } = await always(t, { retryAfter: { status: 429, seconds: 100 } });
  const { session, reports } = startSession(t, host);
  const answer = session.getManifest(TAG);
  while (reports.waits.length === 0) await new Promise(setImmediate);
  session.close();
  await assert.rejects(answer, { name: 'AbortError' });
});

test('a wait that a mirror asks for and that is skipped is not counted', async (t) => {
  const mirror = await always(t, { retryAfter: { status: 429, seconds: 100 } });
  const { host } = await startSandbox(t);
  const endpoints = [mirror.host, host].map((each) => ({ host: each, repository: 'x', insecure: false }));
  const { options, reports } = sessionOptions(host);
  const session = createMirroredSession({
    ...options,
    endpoints,
    credentialsFor: (endpoint) => createCredentials({ ...endpoint, env: {} }),
  });
  t.after(() => session.close());
  assert.deepEqual((await session.getManifest(TAG)).bytes, MANIFEST);
  assert.deepEqual([mirror.requests.length, reports.waits, options.waits[0]], [1, [], 0n]);
});
