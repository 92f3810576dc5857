import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startSession } from '../../support/session.js';

test('only loopback hosts and allowed ones are asked in http', (t) => {
  for (const [host, origin] of [
    ['example.com', 'https://example.com'],
    ['localhost.example.com', 'https://localhost.example.com'],
    ['localhost:5000', 'http://localhost:5000'],
    ['[::1]:5000', 'http://[::1]:5000'],
    ['docker.io', 'https://registry-1.docker.io'],
  ] as const) {
    assert.equal(startSession(t, host).session.origin, origin);
  }
  const allowed = startSession(t, 'example.com', { plainHttp: true });
  assert.equal(allowed.session.origin, 'http://example.com');
});

test('a host is a name and a port and nothing else', (t) => {
  for (const host of ['a/b', 'user@example.com', '', 'a b', 'a?b', 'a#b']) {
    const is = { code: 'reference-malformed', message: /is not a registry host/ };
    assert.throws(() => startSession(t, host), is, host);
  }
});
