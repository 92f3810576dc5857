import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { trustTestAuthority } from '../support/certificate.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { skipUnless } from '../support/programs.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const USER = { username: 'me', password: 'a pass:word' };

/** A file with these credentials for a host. */
function writeLogin(path: string, host: string, { username, password }: typeof USER): string {
  const auth = Buffer.from(`${username}:${password}`).toString('base64');
  writeFileSync(path, JSON.stringify({ auths: { [host]: { auth } } }));
  return path;
}

test('an image behind a token server is pulled with credentials, and each renewal is requested once', async (t) => {
  const requireToken = { credentials: `${USER.username}:${USER.password}`, expiresAfterMs: 300_000 };
  const registry = await startSandbox(t, { requireToken });
  const image = `${registry.host}/team/app:chunked-v1`;
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const anonymous = await failureOf(pull(image, { store, authfile: '/dev/null' }));
  assert.equal(anonymous.exitCode, 4);
  assert.match(anonymous.hint ?? '', /^log in with "docker login 127.* in \/dev\/null$/);
  const before = registry.requests.length;
  const authfile = writeLogin(join(directory, 'auth.json'), registry.host, USER);
  assertProven((await pull(image, { store, authfile, workers: 2 })).result);
  const tokens = registry.requests.slice(before).filter(({ path }) => path === '/token');
  assert.deepEqual(
    tokens.map(({ status }) => status),
    [200],
  );
});

test('a token that expires during the pull is renewed once for all workers', async (t) => {
  const match = { path: '/blobs/', range: 'any', nth: [3, 4] as const };
  const challenged = { match, action: { challenge: { always: true } } };
  const requireToken = { credentials: `${USER.username}:${USER.password}` };
  const registry = await startSandbox(t, { requireToken, faults: [challenged] });
  const options = { store: join(temporaryDirectory(t), 'store'), credentials: USER, workers: 2 };
  const { result } = await pull(`${registry.host}/team/app:chunked-v1`, options);
  assertProven(result);
  assert.equal(result.misses, 0);
  const tokens = registry.requests.filter(({ path }) => path === '/token');
  assert.ok(tokens.length >= 2 && tokens.length <= 3, `${tokens.length} tokens`);
});

test("Debian's docker-registry accepts the users of its htpasswd file over TLS", {
  skip: skipUnless('docker-registry', 'htpasswd', 'openssl', 'skopeo'),
}, async (t) => {
  trustTestAuthority(t);
  const registry = await startDockerRegistry({ user: USER, tls: true });
  t.after(() => registry.stop());
  await registry.fill(FIXTURE_LAYOUT, 'chunked-v1', 'team/app:v1');
  const image = `${registry.host}/team/app:v1`;
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const authfile = join(directory, 'auth.json');
  const login = ['login', '--tls-verify=false', '--authfile', authfile, '--username', USER.username];
  await promisify(execFile)('skopeo', [...login, '--password', USER.password, registry.host]);
  assertProven((await pull(image, { store, authfile })).result);

  const wrong = { ...USER, password: 'wrong' };
  const refused = await failureOf(pull(image, { store: join(directory, 'other'), credentials: wrong }));
  assert.equal(refused.exitCode, 4);
  assert.match(refused.message, /denies access to team\/app with the credentials of the command line/);
  const other = writeLogin(join(directory, 'other.json'), 'example.com', USER);
  const stranger = await failureOf(pull(image, { store: join(directory, 'other'), authfile: other }));
  assert.equal(stranger.exitCode, 4);
  assert.match(stranger.message, /requires a login/);
});
