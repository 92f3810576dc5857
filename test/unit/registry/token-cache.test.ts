import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Token, type TokenRequest, tokenRequest } from '../../../src/registry/token.js';
import { cachedToken, type TokenCache } from '../../../src/registry/token-cache.js';

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

test('the same request is answered with one token until that expires', async () => {
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

test('a token that was refused is never given again, and one that came since is', async () => {
  const { get, state } = create();
  await get();
  assert.equal(await get('t1'), 't2');
  assert.deepEqual([await get('t1'), await get()], ['t2', 't2']);
  state.fails = true;
  await assert.rejects(get('t2'));
  state.fails = false;
  assert.equal(await get(), 't4');
});

test('who asks at the same time shares one request, and a failure is that of whoever asked', async () => {
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
