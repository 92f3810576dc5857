/** Tokens that a session gets of a registry's token server. Elsewhere: what the server is asked (unit/registry/token) and with what credentials. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FaultMatch, FaultRule } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { startSession } from '../support/session.js';

const TAG = 'chunked-v1';
const MANIFESTS = '/manifests/';

/** Questions for a manifest that are refused whatever token comes with them. */
function refused(...nths: readonly NonNullable<FaultMatch['nth']>[]): FaultRule[] {
  return nths.map((nth) => ({ match: { path: MANIFESTS, nth }, action: { challenge: { always: true } } }));
}

function tokensOf({ requests }: SandboxRegistry): number {
  return requests.filter(({ path }) => path === '/token').length;
}

function manifestsOf({ requests }: SandboxRegistry): number[] {
  return requests.filter(({ path }) => path.includes(MANIFESTS)).map(({ status }) => status);
}

test('a token is requested once, cached, and renewed when it is refused; one that is refused when new is final', async (t) => {
  const registry = await startSandbox(t, { requireToken: {}, faults: refused(4, [6, 7]) });
  const { session } = startSession(t, registry.host);
  await session.getManifest(TAG);
  await session.getManifest(TAG);
  assert.equal(tokensOf(registry), 1);
  await session.getManifest(TAG);
  assert.equal(tokensOf(registry), 2);
  const error = await failureOf(session.getManifest(TAG));
  assert.equal(error.code, 'unauthorized');
  assert.match(error.message, /requires a login/);
  assert.equal(tokensOf(registry), 3);
  assert.deepEqual(manifestsOf(registry), [401, 200, 200, 401, 200, 401, 401]);
});

test('sessions that share tokens request one, renew it for all, and never use one that is refused', async (t) => {
  const registry = await startSandbox(t, { requireToken: {}, faults: refused(6, 8, [11, 12]) });
  const tokens = new Map();
  const start = () => startSession(t, registry.host, { tokens }).session;
  const one = start();
  await one.getManifest(TAG);
  await start().getManifest(TAG);
  assert.equal(tokensOf(registry), 1);
  await start().getManifest(TAG);
  assert.equal(tokensOf(registry), 2, 'what the others had is refused');
  await one.getManifest(TAG);
  assert.equal(tokensOf(registry), 2, 'the first has the new one by now');
  assert.equal((await failureOf(start().getManifest(TAG))).code, 'unauthorized');
  assert.equal(tokensOf(registry), 3);
  assert.deepEqual(manifestsOf(registry), [401, 200, 401, 200, 401, 401, 200, 401, 200, 401, 401, 401]);
});

test('requests that were refused the same token share one renewal', async (t) => {
  const registry = await startSandbox(t, { requireToken: {} });
  const { session } = startSession(t, registry.host);
  await session.getManifest(TAG);
  const stale = await session.authorization();
  const renewed = await Promise.all([1, 2, 3].map(() => session.authorization(stale)));
  assert.notEqual(renewed[0], stale);
  assert.equal(new Set([...renewed, await session.authorization(stale)]).size, 1);
  assert.equal(tokensOf(registry), 2);
});

test('the first request of a session may be a worker’s for a token: the registry says where', async (t) => {
  const { host, requests } = await startSandbox(t, { requireToken: {} });
  const { session } = startSession(t, host);
  assert.equal(await session.authorization(), undefined);
  assert.match((await session.authorization('')) ?? '', /^Bearer \S+$/);
  assert.deepEqual(
    requests.map(({ path }) => path),
    ['/v2/', '/token'],
  );
});

test('a failing token server is tried three times before it is a miss', async (t) => {
  const trouble = { match: { path: '/token', nth: [1, 4] }, action: { status: 500 } } as const;
  const registry = await startSandbox(t, { requireToken: {}, faults: [trouble] });
  const { session, reports } = startSession(t, registry.host, {}, 1);
  await session.getManifest(TAG);
  assert.equal(tokensOf(registry), 5);
  assert.deepEqual(reports.misses, [`no token from ${registry.host}: ${registry.host} answers 500`]);
});

for (const [action, code, words] of [
  [{ status: 403 }, 'unauthorized', /token server .* answered 403$/],
  [{ status: 200, body: '{"token":"two\\r\\nlines"}' }, 'answer-unexpected', /without a usable token$/],
] as const) {
  test(`a token server that answers ${action.status} without a usable token ends the request`, async (t) => {
    const faults = [{ match: { path: '/token' }, action }];
    const registry = await startSandbox(t, { requireToken: {}, faults });
    const error = await failureOf(startSession(t, registry.host).session.getManifest(TAG));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    assert.equal(tokensOf(registry), 1);
  });
}

test('a config comes from another origin, which gets no token', async (t) => {
  const redirect = { match: { path: '/blobs/' }, action: { redirect: {} } };
  const { host, requests } = await startSandbox(t, { requireToken: {}, faults: [redirect] });
  const { session } = startSession(t, host);
  const { config } = JSON.parse((await session.getManifest(TAG)).bytes.toString());
  // The other origin refuses a request with a second kind of authorization, as S3 does.
  assert.equal((await session.getBlob(config.digest, config.size)).length, config.size);
  assert.deepEqual(
    requests.slice(-2).map(({ path, status }) => [path.split('/')[1], status]),
    [
      ['v2', 307],
      ['signed', 200],
    ],
  );
});
