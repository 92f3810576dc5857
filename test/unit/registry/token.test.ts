import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { parseChallenges } from '../../../src/registry/headers.js';
import {
  cachedToken,
  createTokenKeeper,
  parseToken,
  type Token,
  type TokenCache,
  type TokenRequest,
  tokenRequest,
  tokenUrl,
} from '../../../src/registry/token.js';

const REGISTRY = new URL('https://example.com');

function urlFor(header: string, registry = REGISTRY): string | undefined {
  try {
    return tokenUrl(parseChallenges(header), registry, 'team/app')?.href;
  } catch (error) {
    assert.ok(error instanceof PullError);
    return error.code;
  }
}

test('the token request is for pulling this repository, whatever scope the registry names', () => {
  assert.equal(
    urlFor('Bearer realm="https://auth.example/t?a=b#c",service="s t",scope="repository:other:push"'),
    'https://auth.example/t?a=b&service=s+t&scope=repository%3Ateam%2Fapp%3Apull',
  );
});

test('without a bearer challenge there is no token server', () => {
  assert.equal(urlFor('Basic realm="x"'), undefined);
  assert.equal(urlFor('Bearer service="x"'), undefined);
  assert.equal(urlFor(''), undefined);
});

test('a realm has to be http or https, and not http when the registry has https', () => {
  assert.equal(urlFor('Bearer realm="ftp://x/"'), 'answer-unexpected');
  assert.equal(urlFor('Bearer realm="x"'), 'answer-unexpected');
  assert.equal(urlFor('Bearer realm="http://auth.example/"'), 'redirect-refused');
  for (const registry of ['http://example.com', 'https://localhost:5000', 'https://127.0.0.1:5000']) {
    assert.match(
      urlFor('Bearer realm="http://auth.example/"', new URL(registry)) ?? '',
      /^http:\/\/auth\.example/,
    );
  }
});

function tokenOf(answer: unknown) {
  return parseToken(Buffer.from(JSON.stringify(answer)), 'auth.example', 1_000_000);
}

test('a token is valid as long as stated, 60 seconds at least and a day at most, less a margin', () => {
  assert.deepEqual(tokenOf({ token: 'x', expires_in: 300 }), { value: 'Bearer x', expiresAtMs: 1_290_000 });
  assert.equal(tokenOf({ access_token: 'x' }).expiresAtMs, 1_050_000);
  assert.equal(tokenOf({ token: 'x', expires_in: 1 }).expiresAtMs, 1_050_000);
  assert.equal(tokenOf({ token: 'x', expires_in: 1e12 }).expiresAtMs, 1_000_000 + 86_390_000);
  assert.equal(tokenOf({ token: 'x', expires_in: 'long' }).expiresAtMs, 1_050_000);
});

test('a token that is invalid in a header is refused', () => {
  for (const answer of [
    {},
    { token: '' },
    { token: 1 },
    { token: 'a\r\nb' },
    { token: 'ä' },
    { token: 'x'.repeat(20_000) },
    null,
  ]) {
    assert.throws(() => tokenOf(answer), { code: 'answer-unexpected' });
  }
});

test('a token is renewed when it expires', async () => {
  let nowMs = 0;
  let serial = 0;
  const keeper = createTokenKeeper(
    async () => ({ value: `t${++serial}`, expiresAtMs: nowMs + 100 }),
    () => nowMs,
  );
  assert.equal(await keeper.authorization(), undefined);
  assert.equal(keeper.expiresAtMs, Number.POSITIVE_INFINITY);
  assert.equal(await keeper.authorization(''), 't1');
  assert.equal(keeper.expiresAtMs, 100);
  assert.equal(await keeper.authorization(), 't1');
  nowMs = 100;
  assert.deepEqual(await Promise.all([keeper.authorization(), keeper.authorization()]), ['t2', 't2']);
});

test('a failed renewal rejects all its callers, and the next caller tries again', async () => {
  let fails = true;
  const keeper = createTokenKeeper(
    async () => {
      if (fails) throw new Error('down');
      return { value: 't', expiresAtMs: 100 };
    },
    () => 0,
  );
  const both = await Promise.allSettled([keeper.authorization(''), keeper.authorization('')]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  fails = false;
  assert.equal(await keeper.authorization(''), 't');
});

const SOURCE = new URL('https://auth.example/token?service=s&scope=repository:a:pull');
const ANYBODY = tokenRequest(SOURCE, undefined);

/** A cache, its clock, and a token server that numbers its tokens, which live 100 ms. */
function create() {
  const cache: TokenCache = new Map();
  const state = { nowMs: 0, fetched: 0, fails: false };
  const fetch = async (): Promise<Token> => {
    const value = `t${++state.fetched}`;
    await new Promise(setImmediate);
    if (state.fails) throw new Error('down');
    return { value, expiresAtMs: state.nowMs + 100 };
  };
  const get = async (stale: string | undefined = '', request: TokenRequest = ANYBODY) =>
    (await cachedToken(cache, request, stale, () => state.nowMs, fetch)).value;
  return { cache, state, get };
}

test('equal requests share one token until it expires', async () => {
  const { get, state } = create();
  assert.deepEqual([await get(), await get(), await get(undefined)], ['t1', 't1', 't1']);
  state.nowMs = 100;
  assert.equal(await get(undefined), 't2');
});

test('another server, scope or secret has a token of its own, and the cache names none of them', async () => {
  const { get, cache } = create();
  const password = { kind: 'password', username: 'me', password: 'canary' } as const;
  const other = { ...password, password: 'canary2' };
  const requests = [
    ANYBODY,
    tokenRequest(new URL('https://other.example/token?service=s&scope=repository:a:pull'), undefined),
    tokenRequest(new URL('https://auth.example/token?service=s&scope=repository:b:pull'), undefined),
    tokenRequest(SOURCE, password),
    tokenRequest(SOURCE, other),
    tokenRequest(SOURCE, { kind: 'identity-token', token: 'canary' }),
    tokenRequest(SOURCE, { kind: 'identity-token', token: 'canary2' }),
  ];
  const values = new Set<string>();
  for (const request of [...requests, ...requests]) values.add(await get('', request));
  assert.equal(values.size, requests.length);
  assert.doesNotMatch([...cache.keys()].join(), /canary|example/);
});

test('a refused token is never returned again, but a newer one is', async () => {
  const { get, state } = create();
  await get();
  assert.equal(await get('t1'), 't2');
  assert.deepEqual([await get('t1'), await get()], ['t2', 't2']);
  state.fails = true;
  await assert.rejects(get('t2'));
  state.fails = false;
  assert.equal(await get(), 't4');
});

test('concurrent callers share one request, and a failure rejects the caller that sent it', async () => {
  const { get, state } = create();
  assert.deepEqual(await Promise.all([get(), get(), get()]), ['t1', 't1', 't1']);
  assert.deepEqual(await Promise.all([get('t1'), get('t1'), get('t1')]), ['t2', 't2', 't2']);
  state.fails = true;
  const first = assert.rejects(get('t2'), /down/);
  const second = get('t2');
  await first;
  state.fails = false;
  assert.equal(await second, 't4');
});
