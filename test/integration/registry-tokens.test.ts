import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { ask } from '../support/http.js';
import { startSandbox } from '../support/sandbox.js';

const BLOB_PATH = `/v2/some/name/blobs/${LAYER_DIGEST}`;

test('with requireToken every path requires a token of its scope', async (t) => {
  const { origin } = await startSandbox(t, { requireToken: {} });
  assert.equal((await ask(`${origin}/v2/`)).status, 401);
  const refused = await ask(origin + BLOB_PATH);
  assert.equal(refused.status, 401);
  const challenge = `Bearer realm="${origin}/token",service="zpull-sandbox",scope="repository:some/name:pull"`;
  assert.equal(refused.headers['www-authenticate'], challenge);
  const answer = await ask(`${origin}/token?service=zpull-sandbox&scope=repository:some/name:pull,push`);
  const { token, access_token, expires_in } = JSON.parse(answer.body.toString());
  assert.equal(access_token, token);
  assert.equal(expires_in, 300);
  const headers = { Authorization: `Bearer ${token}` };
  assert.equal((await ask(`${origin}/v2/`, { headers })).status, 200);
  assert.equal((await ask(origin + BLOB_PATH, { headers })).status, 200);
  const other = await ask(`${origin}/v2/other/manifests/chunked-v1`, { headers });
  assert.equal(other.status, 401);
  assert.match(String(other.headers['www-authenticate']), /error="invalid_token"$/);
  const forged = { Authorization: `Bearer ${token.slice(0, -1)}${token.endsWith('0') ? '1' : '0'}` };
  assert.equal((await ask(origin + BLOB_PATH, { headers: forged })).status, 401);
});

test('a token is valid as long as its rule states, whatever other rules there are', async (t) => {
  const faults = [{ match: { path: 'nowhere' }, action: { status: 500 } }];
  const { origin } = await startSandbox(t, { requireToken: { expiresAfterMs: 600_000 }, faults });
  const answer = await ask(`${origin}/token`);
  assert.equal(JSON.parse(answer.body.toString()).expires_in, 600);
});

test('a token expires, and credentials are required where they are set', async (t) => {
  const { origin } = await startSandbox(t, { requireToken: { expiresAfterMs: 0, credentials: 'user:pass' } });
  const basic = (text: string): Record<string, string> => ({
    Authorization: `Basic ${Buffer.from(text).toString('base64')}`,
  });
  assert.equal((await ask(`${origin}/token`)).status, 401);
  assert.equal((await ask(`${origin}/token`, { headers: basic('user:wrong') })).status, 401);
  const answer = await ask(`${origin}/token`, { headers: basic('user:pass') });
  const { token, expires_in } = JSON.parse(answer.body.toString());
  assert.equal(expires_in, 1);
  assert.equal((await ask(`${origin}/v2/`, { headers: { Authorization: `Bearer ${token}` } })).status, 401);
});
