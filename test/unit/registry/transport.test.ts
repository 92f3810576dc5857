import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { isRedirect, type NetworkEnvironment, nextHop, proxyFor } from '../../../src/registry/transport.js';
import { startSession } from '../../support/session.js';

function proxyOf(url: string, environment: NetworkEnvironment): string | undefined {
  return proxyFor(new URL(url), environment)?.origin;
}

/** Whether NO_PROXY keeps this URL from the proxy. */
function isExcepted(noProxy: string, url: string): boolean {
  return proxyOf(url, { HTTP_PROXY: 'http://p', HTTPS_PROXY: 'http://p', NO_PROXY: noProxy }) === undefined;
}

test('each scheme has its variable, in upper case before lower case, with http:// left out or not', () => {
  assert.equal(proxyOf('http://a/', { HTTP_PROXY: 'http://up:1', http_proxy: 'http://low' }), 'http://up:1');
  assert.equal(proxyOf('http://a/', { http_proxy: 'low:3128' }), 'http://low:3128');
  assert.equal(proxyOf('https://a/', { HTTP_PROXY: 'http://up:1' }), undefined);
  assert.equal(proxyOf('https://a/', { HTTPS_PROXY: 'https://up', https_proxy: 'x' }), 'https://up');
  assert.equal(proxyFor(new URL('https://a/'), { https_proxy: 'https://low' })?.host, 'low:443');
  assert.equal(proxyOf('https://a/', {}), undefined);
});

test('HTTP_PROXY of a CGI program is what a stranger sent, http_proxy is not', () => {
  assert.equal(proxyOf('http://a/', { HTTP_PROXY: 'http://evil', REQUEST_METHOD: 'GET' }), undefined);
  const environment = { HTTP_PROXY: 'http://evil', http_proxy: 'http://good', REQUEST_METHOD: 'GET' };
  assert.equal(proxyOf('http://a/', environment), 'http://good');
});

test('user and password become a header and are in nothing else', () => {
  const proxy = proxyFor(new URL('http://a/'), { HTTP_PROXY: 'http://user:p%40ss%25w@proxy:3128' });
  assert.deepEqual(proxy, {
    origin: 'http://proxy:3128',
    host: 'proxy:3128',
    authorization: `Basic ${Buffer.from('user:p@ss%w').toString('base64')}`,
  });
});

test('loopback is never proxied', () => {
  const environment = { HTTP_PROXY: 'http://p', HTTPS_PROXY: 'http://p' };
  for (const url of ['http://localhost:5000/', 'http://127.1.2.3/', 'https://[::1]:5000/'])
    assert.equal(proxyOf(url, environment), undefined, url);
  assert.equal(proxyOf('http://128.0.0.1/', environment), 'http://p');
});

test('NO_PROXY names hosts, domains, addresses, blocks and ports', () => {
  for (const [entries, url, excepted] of [
    ['*', 'http://a.example/', true],
    ['example.com', 'http://example.com/', true],
    ['example.com', 'https://a.b.example.com/', true],
    ['example.com', 'http://notexample.com/', false],
    ['.example.com', 'http://example.com/', false],
    ['.example.com', 'http://a.example.com/', true],
    ['*.example.com', 'http://a.example.com/', true],
    ['EXAMPLE.com', 'http://example.COM/', true],
    ['other, example.com ,,', 'http://example.com/', true],
    ['example.com:5000', 'http://example.com:5000/', true],
    ['example.com:5000', 'http://example.com/', false],
    ['example.com:443', 'https://example.com/', true],
    ['10.0.0.0/8', 'http://10.1.2.3/', true],
    ['10.0.0.0/8', 'http://11.1.2.3/', false],
    ['10.0.0.0/8', 'http://example.com/', false],
    ['10.0.0.0/99', 'http://10.1.2.3/', false],
    ['10.0.0.0/-0', 'http://10.1.2.3/', false],
    ['10.0.0.0/', 'http://10.1.2.3/', false],
    ['10.0.0.0/8e0', 'http://10.1.2.3/', false],
    ['fe80::1%eth0', 'http://[fe80::1]/', false],
    ['fe80::%eth0/64', 'http://[fe80::1]/', false],
    ['192.168.1.1', 'http://192.168.1.1:5000/', true],
    ['192.168.1.1:80', 'http://192.168.1.1:5000/', false],
    ['fd00::/8', 'http://[fd12::1]/', true],
    ['fd12:0::1', 'http://[fd12::1]/', true],
    ['[fd12::1]:5000', 'http://[fd12::1]:5000/', true],
    ['', 'http://example.com/', false],
  ] as const) {
    assert.equal(isExcepted(entries, url), excepted, `${entries} for ${url}`);
  }
  assert.equal(proxyOf('http://a/', { HTTP_PROXY: 'http://p', no_proxy: 'a' }), undefined);
});

test('a malformed proxy is refused without repeating it', () => {
  for (const value of ['socks5://user:secret@proxy', 'http://user:secret@', 'http://user:secret@:x']) {
    assert.throws(
      () => proxyOf('http://a/', { HTTP_PROXY: value }),
      (error: unknown) => {
        assert.ok(error instanceof PullError && error.code === 'option-malformed', String(error));
        assert.doesNotMatch(`${error.message} ${error.hint} ${error.stack}`, /secret/);
        return true;
      },
      value,
    );
  }
});

test('a SOCKS proxy is refused with what to do instead', () => {
  for (const scheme of ['socks', 'socks4', 'socks5', 'socks5h']) {
    const environment = { HTTPS_PROXY: `${scheme}://user:secret@proxy.example:1080` };
    assert.throws(() => proxyFor(new URL('https://registry.example/'), environment), {
      code: 'option-malformed',
      message: 'HTTPS_PROXY names a SOCKS proxy, which is not supported',
      hint: /name an HTTP proxy/,
    });
  }
});

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
