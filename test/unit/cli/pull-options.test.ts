import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { pullOptionsOf } from '../../../src/cli/pull-options.js';

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
