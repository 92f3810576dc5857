import assert from 'node:assert/strict';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { defaultStore, pullOptionsOf, readPassword } from '../../../src/cli/pull-options.js';

test('seconds become milliseconds, and what was not given is left to the pull', () => {
  assert.deepEqual(
    pullOptionsOf(
      {
        store: '/s',
        patience: 0.5,
        'connect-timeout': 2,
        'answer-timeout': 90,
        'tls-verify': false,
        'cert-dir': 'c',
        'limit-rate': 9,
      },
      {},
    ),
    {
      store: '/s',
      patienceMs: 500,
      connectTimeoutMs: 2000,
      answerTimeoutMs: 90_000,
      tlsVerify: false,
      certDir: 'c',
      limitRate: 9,
    },
  );
});

test('the platform comes from the option, else from DOCKER_DEFAULT_PLATFORM unless that is empty', () => {
  const env = { DOCKER_DEFAULT_PLATFORM: 'linux/arm64' };
  assert.equal(pullOptionsOf({ platform: 'linux/s390x' }, env).platform, 'linux/s390x');
  assert.equal(pullOptionsOf({}, env).platform, 'linux/arm64');
  assert.equal('platform' in pullOptionsOf({}, { DOCKER_DEFAULT_PLATFORM: '' }), false);
});

test('credentials are a user name up to the first colon and a password, and a file is named from here', () => {
  const of = (creds: string) => pullOptionsOf({ creds }, {}).credentials;
  assert.deepEqual(of('me:a:b'), { username: 'me', password: 'a:b' });
  assert.deepEqual(of('me'), { username: 'me', password: '' });
  assert.equal(pullOptionsOf({ authfile: 'a.json' }, {}).authfile, join(process.cwd(), 'a.json'));
});

test('the store is where ZPULL_STORE says, else under XDG_DATA_HOME, else in the home directory', () => {
  assert.equal(defaultStore({ ZPULL_STORE: '/a', XDG_DATA_HOME: '/b' }), '/a');
  assert.equal(defaultStore({ ZPULL_STORE: '', XDG_DATA_HOME: '/b' }), join('/b', 'zpull'));
  assert.equal(defaultStore({}), join(homedir(), '.local', 'share', 'zpull'));
});

test('a relative ZPULL_STORE is one of the working directory, a relative XDG_DATA_HOME none at all', () => {
  assert.equal(defaultStore({ ZPULL_STORE: 'here' }), resolve('here'));
  assert.equal(defaultStore({ XDG_DATA_HOME: 'b' }), join(homedir(), '.local', 'share', 'zpull'));
});

function read(...chunks: string[]) {
  const options = { username: 'me', 'password-stdin': true, json: true };
  return readPassword(options, Readable.from(chunks.map((chunk) => Buffer.from(chunk))));
}

test('the password is what standard input has, without one line end behind it', async () => {
  for (const [chunks, password] of [
    [['secr', 'et\n'], 'secret'],
    [['secret\r\n'], 'secret'],
    [[' a:b \n\n'], ' a:b \n'],
  ] as const) {
    assert.deepEqual(await read(...chunks), { json: true, creds: `me:${password}` });
  }
});

test('without the option nothing is read', async () => {
  const options = { creds: 'a:b' };
  const input = Readable.from([Buffer.from('x')]);
  assert.equal(await readPassword(options, input), options);
  assert.equal(input.readableDidRead, false);
});

test('no password, or a file in its place, is wrong usage', async () => {
  await assert.rejects(read(), { code: 'option-malformed', message: /has no password/ });
  await assert.rejects(read('\n'), { message: /has no password/ });
  await assert.rejects(read('x'.repeat(64 * 1024 + 1)), { message: /too long/ });
});

test('a user name with a colon would be another one', async () => {
  const options = { username: 'a:b', 'password-stdin': true };
  await assert.rejects(readPassword(options, Readable.from([Buffer.from('x')])), {
    code: 'option-malformed',
  });
});

test('an input that goes on without an end is given up', async () => {
  const options = { username: 'me', 'password-stdin': true };
  const silent = new Readable({ read: () => {} });
  await assert.rejects(readPassword(options, silent, 50), { message: /did not end within 0\.05 s/ });
  assert.equal(silent.destroyed, true);
  const trickle = new Readable({ read: () => void setTimeout(() => trickle.push('x'), 5) });
  await assert.rejects(readPassword(options, trickle, 50), { message: /did not end within/ });
});
