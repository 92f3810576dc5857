import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { isRedirect, nextHop } from '../../../src/registry/transport.js';
import { startSession } from '../../support/session.js';

test('only loopback hosts and allowed ones are requested in http', (t) => {
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

const FROM = new URL('https://example.com/v2/a/blobs/b');

function codeOf(from: URL, location: string | undefined, hop = 1): string {
  try {
    return nextHop(from, location, hop).href;
  } catch (error) {
    assert.ok(error instanceof PullError);
    assert.doesNotMatch(error.message, /secret/);
    assert.ok(error.hint !== undefined, error.message);
    return error.code;
  }
}

test('only statuses that send a GET elsewhere are redirects', () => {
  assert.deepEqual(
    [200, 206, 300, 301, 302, 303, 304, 305, 307, 308, 401].filter(isRedirect),
    [301, 302, 303, 307, 308],
  );
});

test('a location is taken relative to where it came from, without user and fragment', () => {
  assert.equal(codeOf(FROM, '/x?y=1'), 'https://example.com/x?y=1');
  assert.equal(codeOf(FROM, 'https://user:secret@cdn.example/x#y'), 'https://cdn.example/x');
});

test('http may lead to http and https, https only to https', () => {
  assert.equal(codeOf(new URL('http://a/'), 'http://b/'), 'http://b/');
  assert.equal(codeOf(new URL('http://a/'), 'https://b/'), 'https://b/');
  assert.equal(codeOf(FROM, 'http://example.com/?secret'), 'redirect-refused');
  assert.equal(codeOf(FROM, 'file:///etc/secret'), 'redirect-refused');
  assert.equal(nextHop(FROM, 'http://minio/x', 1, true).href, 'http://minio/x');
  assert.throws(() => nextHop(FROM, 'file:///etc/secret', 1, true), { code: 'redirect-refused' });
});

test('five hops are followed and no sixth', () => {
  assert.equal(codeOf(FROM, '/x', 5), 'https://example.com/x');
  assert.equal(codeOf(FROM, '/x', 6), 'redirect-refused');
});

test('a redirect without a usable location is an error', () => {
  for (const location of [undefined, 'https://', `/${'x'.repeat(9000)}`]) {
    assert.equal(codeOf(FROM, location), 'answer-unexpected');
  }
});
