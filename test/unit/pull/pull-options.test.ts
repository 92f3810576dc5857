import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PULL_OPTIONS } from '../../../src/cli/options.js';
import { PullError } from '../../../src/format/error.js';
import {
  MAX_CONNECTIONS,
  MAX_TIMEOUT_MS,
  MAX_WORKERS,
  type PullOptions,
  resolveOptions,
} from '../../../src/pull/pull-options.js';

test('without options a pull has the defaults that the documentation names', () => {
  const settings = resolveOptions({ store: '/somewhere' });
  assert.equal(settings.store, '/somewhere');
  assert.equal(settings.policy, 'always');
  assert.equal(settings.connections, 16);
  assert.deepEqual(
    [settings.patienceMs, settings.connectTimeoutMs, settings.idleTimeoutMs, settings.answerTimeoutMs],
    [1000, 5000, 10_000, 60_000],
  );
  assert.deepEqual([settings.plainHttp, settings.tlsVerify], [false, true]);
  assert.ok(settings.workers >= 1 && settings.workers <= 16);
  assert.match(settings.platformName, /^linux\//);
});

test('a platform is normalised', () => {
  assert.equal(resolveOptions({ store: '/s', platform: 'linux/x86_64' }).platformName, 'linux/amd64');
  assert.equal(resolveOptions({ store: '/s', platform: 'linux/arm64/v8' }).platformName, 'linux/arm64');
});

test('an option out of bounds is refused by its name', () => {
  const wrong: ReadonlyArray<Partial<PullOptions>> = [
    { workers: 0 },
    { workers: MAX_WORKERS + 1 },
    { workers: 1.5 },
    { workers: Number.NaN },
    { connections: 0 },
    { connections: MAX_CONNECTIONS + 1 },
    { patienceMs: MAX_TIMEOUT_MS + 1 },
    { patienceMs: 0 },
    { patienceMs: Number.POSITIVE_INFINITY },
    { connectTimeoutMs: -1 },
    { idleTimeoutMs: 0 },
    { answerTimeoutMs: MAX_TIMEOUT_MS + 1 },
    { limitRate: 0 },
    { limitRate: Number.NaN },
  ];
  for (const options of wrong) {
    const [name = ''] = Object.keys(options);
    assert.throws(
      () => resolveOptions({ store: '/s', ...options }),
      (error) =>
        error instanceof PullError && error.code === 'option-malformed' && error.message.includes(name),
      name,
    );
  }
  assert.throws(() => resolveOptions({ store: '/s', platform: 'linux' }), { code: 'option-malformed' });
});

test('a user name that Basic authentication cannot express is refused, without the password in the error', () => {
  for (const username of ['', 'a:b']) {
    assert.throws(
      () => resolveOptions({ store: '/s', credentials: { username, password: 'canary' } }),
      (error) =>
        error instanceof PullError && error.code === 'option-malformed' && !/canary/.test(String(error)),
    );
  }
});

test('the command line, which does not load this module, has the same limits', () => {
  const most = (name: string) => PULL_OPTIONS.find((option) => option.name === name)?.number?.max;
  assert.equal(most('workers'), MAX_WORKERS);
  assert.equal(most('connections'), MAX_CONNECTIONS);
  for (const name of ['patience', 'connect-timeout', 'idle-timeout'])
    assert.equal(most(name), MAX_TIMEOUT_MS / 1000, name);
});

test('options of the wrong type are refused by their name, and a password is not repeated', () => {
  const given: readonly (readonly [name: string, value: unknown])[] = [
    ['policy', 'sometimes'],
    ['policy', {}],
    ['platform', ''],
    ['platform', 7],
    ['tlsVerify', 'false'],
    ['plainHttp', 1],
    ['debug', null],
    ['certDir', ''],
    ['authfile', {}],
    ['credentials', 'me:canary'],
    ['credentials', { username: 'canary' }],
    ['signal', new AbortController()],
    ['onEvent', {}],
    ['workers', '2'],
    ['connections', {}],
    ['patienceMs', 'long'],
    ['limitRate', '10M'],
  ];
  for (const [name, value] of given) {
    const options = { store: '/s', [name]: value } as unknown as PullOptions;
    assert.throws(
      () => resolveOptions(options),
      (error) =>
        error instanceof PullError &&
        error.code === 'option-malformed' &&
        error.message.startsWith(`${name} must be `) &&
        !error.message.includes('canary'),
      name,
    );
  }
  for (const options of [undefined, null, 'store', []]) {
    assert.throws(() => resolveOptions(options as unknown as PullOptions), { code: 'option-malformed' });
  }
});
