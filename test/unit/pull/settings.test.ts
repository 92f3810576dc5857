import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import type { PullOptions } from '../../../src/pull/options.js';
import { settle } from '../../../src/pull/settings.js';

test('without options a pull has the defaults that the documentation names', () => {
  const settings = settle({ store: '/somewhere' });
  assert.equal(settings.store, '/somewhere');
  assert.equal(settings.policy, 'always');
  assert.equal(settings.connections, 16);
  assert.deepEqual(
    [settings.patienceMs, settings.connectTimeoutMs, settings.idleTimeoutMs],
    [1000, 5000, 10_000],
  );
  assert.deepEqual([settings.plainHttp, settings.tlsVerify], [false, true]);
  assert.ok(settings.workers >= 1 && settings.workers <= 16);
  assert.match(settings.platformName, /^linux\//);
});

test('a platform is taken in its one spelling', () => {
  assert.equal(settle({ store: '/s', platform: 'linux/x86_64' }).platformName, 'linux/amd64');
  assert.equal(settle({ store: '/s', platform: 'linux/arm64/v8' }).platformName, 'linux/arm64');
});

test('an option out of bounds is refused by its name', () => {
  const wrong: ReadonlyArray<Partial<PullOptions>> = [
    { workers: 0 },
    { workers: 257 },
    { workers: Number.NaN },
    { connections: 0 },
    { connections: 1025 },
    { patienceMs: 0 },
    { patienceMs: Number.POSITIVE_INFINITY },
    { connectTimeoutMs: -1 },
    { idleTimeoutMs: 0 },
  ];
  for (const options of wrong) {
    const [name = ''] = Object.keys(options);
    assert.throws(
      () => settle({ store: '/s', ...options }),
      (error) =>
        error instanceof PullError && error.code === 'option-malformed' && error.message.includes(name),
      name,
    );
  }
  assert.throws(() => settle({ store: '/s', platform: 'linux' }), { code: 'option-malformed' });
});
