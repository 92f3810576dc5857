import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { PullOptions } from '../../src/api/pull.js';
import { NEEDS_OPENSSL, trustTestAuthority } from '../support/certificate.js';
import { setEnvironment } from '../support/environment.js';
import { startProxy } from '../support/proxy-server.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

/** The tests' registry: no name server knows it, so whoever reaches it went through the proxy. */
const IMAGE = 'registry.test:5000/x:chunked-v1';
const SECRET = 'user:s3cret';

function options(t: TestContext, more: Partial<PullOptions> = {}): PullOptions {
  return { store: temporaryDirectory(t), workers: 2, debug: true, ...more };
}

test('http requests go to the proxy with the full URL, from main thread and workers', async (t) => {
  const registry = await startSandbox(t);
  const proxy = await startProxy(t, registry.host);
  setEnvironment(t, { HTTP_PROXY: `http://${SECRET}@${proxy.host}` });
  const pulled = await pull(IMAGE, options(t, { plainHttp: true }));
  assertProven(pulled.result);
  assert.ok(proxy.passed.length === registry.requests.length && proxy.passed.length > 3);
  for (const { asked, credentials } of proxy.passed) {
    assert.match(asked, /^GET http:\/\/registry\.test:5000\/v2\/x\//);
    assert.equal(credentials, SECRET);
  }
  assert.doesNotMatch(JSON.stringify(pulled), /s3cret/);
});

test(
  'https goes through the proxy in a tunnel, with the registry’s certificate checked at its end',
  NEEDS_OPENSSL,
  async (t) => {
    const registry = await startSandbox(t);
    const front = await tlsFront(t, registry.host);
    const proxy = await startProxy(t, front);
    setEnvironment(t, { https_proxy: `http://${SECRET}@${proxy.host}` });
    const refused = await failureOf(pull(IMAGE, options(t)));
    assert.match(refused.message, /certificate of registry\.test:5000 is not trusted/);
    trustTestAuthority(t);
    const before = proxy.passed.length;
    const pulled = await pull(IMAGE, options(t));
    assertProven(pulled.result);
    const passed = proxy.passed.slice(before);
    // At least one of the main thread and one of a worker.
    assert.ok(passed.length >= 2);
    for (const { asked, credentials } of passed) {
      assert.equal(asked, 'CONNECT registry.test:5000');
      assert.equal(credentials, SECRET);
    }
    assert.doesNotMatch(JSON.stringify(pulled), /s3cret/);
  },
);

test('a proxy is reached over TLS when its URL says so, for http and https', NEEDS_OPENSSL, async (t) => {
  const registry = await startSandbox(t);
  trustTestAuthority(t);
  for (const scheme of ['http', 'https']) {
    const proxy = await startProxy(t, scheme === 'http' ? registry.host : await tlsFront(t, registry.host));
    const url = `https://${SECRET}@${await tlsFront(t, proxy.host)}`;
    setEnvironment(t, { [`${scheme.toUpperCase()}_PROXY`]: url });
    assertProven((await pull(IMAGE, options(t, { plainHttp: scheme === 'http' }))).result);
    assert.ok(proxy.passed.length >= 2 && proxy.passed.every(({ credentials }) => credentials === SECRET));
  }
});

test('requests to NO_PROXY and loopback bypass the proxy', async (t) => {
  const registry = await startSandbox(t);
  const proxy = await startProxy(t, registry.host);
  setEnvironment(t, { HTTP_PROXY: proxy.host, HTTPS_PROXY: proxy.host, NO_PROXY: 'example.com,.test:5000' });
  assertProven((await pull(`${registry.host}/x:chunked-v1`, options(t))).result);
  const error = await failureOf(pull(IMAGE, options(t, { plainHttp: true })));
  assert.match(error.message, /host registry\.test:5000/);
  assert.equal(proxy.passed.length, 0);
});

test('the error of a proxy that refuses, requires credentials or is absent names it without its password', async (t) => {
  for (const [status, scheme, code, words] of [
    [407, 'https', 'network-hopeless', /the proxy 127\.0\.0\.1:\d+ requires credentials/],
    [403, 'https', 'network-hopeless', /refuses to connect to registry\.test:5000 \(403\)/],
    [502, 'https', 'network-hopeless', /cannot reach registry\.test:5000 \(502\)/],
    [407, 'http', 'unauthorized', /the proxy before registry\.test:5000 requires credentials/],
    [undefined, 'https', 'network-hopeless', /the proxy 127\.0\.0\.1:1 refuses the connection/],
    [undefined, 'http', 'network-hopeless', /the proxy 127\.0\.0\.1:1 refuses the connection/],
  ] as const) {
    const proxy = await startProxy(t, '127.0.0.1:1', status);
    const host = status === undefined ? '127.0.0.1:1' : proxy.host;
    setEnvironment(t, { [`${scheme.toUpperCase()}_PROXY`]: `http://${SECRET}@${host}` });
    const error = await failureOf(pull(IMAGE, options(t, { plainHttp: scheme === 'http' })));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    assert.doesNotMatch(`${error.message} ${error.hint} ${error.stack}`, /s3cret|czNjcmV0/);
  }
});
