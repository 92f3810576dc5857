import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configRows } from '../../../../src/cli/commands/inspect.js';

test('inspect shows what a container of the image runs, as whom and with which environment', () => {
  const rows = configRows({
    created: '2026-01-02T03:04:05Z',
    config: {
      Entrypoint: ['/entry.sh', '--mode=a b', "it's"],
      Cmd: ['nginx', '-g', 'daemon off;'],
      User: '101:101',
      WorkingDir: '/srv',
      ExposedPorts: { '80/tcp': {}, '443/tcp': {} },
      Env: ['PATH=/bin', 'A=b c'],
      Labels: { 'org.opencontainers.image.source': 'https://example.org', maintainer: 'me' },
    },
  });
  assert.deepEqual(rows, [
    ['created', '2026-01-02T03:04:05Z'],
    ['entry point', `/entry.sh '--mode=a b' 'it'\\''s'`],
    ['command', `nginx -g 'daemon off;'`],
    ['user', '101:101'],
    ['working dir', '/srv'],
    ['ports', '80/tcp 443/tcp'],
    ['env', 'PATH=/bin'],
    ['', 'A=b c'],
    ['labels', 'org.opencontainers.image.source=https://example.org'],
    ['', 'maintainer=me'],
  ]);
});

test('a config may leave everything out or have other types, and long texts and lists are cut', () => {
  for (const config of [
    null,
    {},
    [],
    { created: 5, config: 'x' },
    { config: { Env: 'PATH=x', Labels: [1] } },
  ]) {
    assert.deepEqual(configRows(config), []);
  }
  const [env] = configRows({ config: { Env: ['x'.repeat(1e6)] } });
  assert.match(env![1], /^x{500}… \(999500 characters more\)$/);
  const labels = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`l${i}`, i]));
  const rows = configRows({ config: { Labels: labels } });
  assert.deepEqual([rows.length, rows.at(-1)], [51, ['', '4950 more: --json has all']]);
});
