import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import dns from 'node:dns';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConnector } from '../../src/registry/connector.js';
import { createHttpClient } from '../../src/registry/http-client.js';
import { certificates, NEEDS_OPENSSL } from '../support/certificate.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

const TRANSPORT = { host: 'slow.test', tlsVerify: true, environment: {} };

test('answers with 20 KB of headers are read, by the main thread and by workers', async (t) => {
  const action = { withHeaders: { 'Content-Security-Policy': 'x'.repeat(20_000) } };
  const registry = await startSandbox(t, { faults: [{ match: {}, action }] });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.misses, 0);
});

test(
  'a server with old TLS only, and one that requires a client certificate, are reported with a hint',
  NEEDS_OPENSSL,
  async (t) => {
    const { host } = await startSandbox(t);
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    const wants = { requestCert: true, rejectUnauthorized: true, ca: certificates().authority };
    for (const [options, message, hint] of [
      [old, /TLS versions that are too old/, /TLS 1\.2 or 1\.3/],
      [wants, /requires a client certificate/, /NAME\.cert .* --cert-dir/],
      [{ ...wants, maxVersion: 'TLSv1.2' }, /requires a client certificate, or/, /NAME\.cert .* --cert-dir/],
    ] as const) {
      const front = await tlsFront(t, host, options);
      const pulling = pull(`${front}/x:y`, { store: temporaryDirectory(t), tlsVerify: false });
      const error = await failureOf(pulling);
      assert.equal(error.exitCode, 5);
      assert.match(error.message, message);
      assert.match(error.hint, hint);
    }
  },
);

/** A server whose connections stand only after `answer` is called: its process is stopped and its backlog is full. */
async function slowServer(t: TestContext, host: string, port = 0) {
  const script = `
    const server = require('node:http').createServer((_, response) => response.end('{}'));
    server.listen({ port: ${port}, host: '${host}', backlog: 1 }, () => console.log(server.address().port));
  `;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const bound = Number(line.toString());
  child.kill('SIGSTOP');
  const fill = Array.from({ length: 4 }, () => connect(bound, host).on('error', () => {}));
  t.after(() => {
    for (const socket of fill) socket.destroy();
  });
  await sleep(100);
  return { port: bound, answer: () => child.kill('SIGCONT') };
}

/** A name with these addresses. */
function nameFor(t: TestContext, ...addresses: string[]): void {
  const found = addresses.map((address) => ({ address, family: 4 }));
  const lookup = (_name: string, _options: object, done: (error: null, found: object) => void) =>
    process.nextTick(done, null, found);
  t.mock.method(dns, 'lookup', lookup as typeof dns.lookup);
}

for (const [other, isSilent] of [
  ['one where nobody listens', false],
  ['one that never answers', true],
] as const) {
  test(`of a slow address and ${other}, the slow one is connected to, although the first try gives it a quarter of a second`, async (t) => {
    nameFor(t, '127.0.0.1', '127.0.0.2');
    const { port, answer } = await slowServer(t, '127.0.0.1');
    if (isSilent) await slowServer(t, '127.0.0.2', port);
    const client = createHttpClient({
      transport: TRANSPORT,
      connectTimeoutMs: 20_000,
      idleTimeoutMs: 20_000,
      answerTimeoutMs: 20_000,
      userAgent: 'test',
    });
    t.after(() => client.close());
    const url = new URL(`http://slow.test:${port}/`);
    const asked = [1, 2].map(() => client.send({ url, headers: {}, maxBytes: 10, received: () => {} }));
    const connected = new Promise<string>((resolve) => {
      const target = { protocol: 'http:', hostname: 'slow.test', port: String(port), host: url.host };
      createConnector(TRANSPORT, 20_000)(target, (error, socket) => {
        socket?.destroy();
        resolve(error === null ? 'connected' : error.message);
      });
    });
    await sleep(700);
    answer();
    for (const { status } of await Promise.all(asked)) assert.equal(status, 200);
    assert.equal(await connected, 'connected');
  });
}

test('a connection that is not established in time is given up, by the main thread and by workers', async (t) => {
  nameFor(t, '127.0.0.1', '127.0.0.2');
  const { port } = await slowServer(t, '127.0.0.1');
  await slowServer(t, '127.0.0.2', port);
  const times = { connectTimeoutMs: 400, idleTimeoutMs: 20_000, answerTimeoutMs: 20_000 };
  const client = createHttpClient({ transport: TRANSPORT, ...times, userAgent: 'test' });
  const url = new URL(`http://slow.test:${port}/`);
  const code = 'ZPULL_CONNECT_TIMEOUT';
  const ask = () => client.send({ url, headers: {}, maxBytes: 10, received: () => {} });
  await assert.rejects(ask(), { code });
  const target = { protocol: 'http:', hostname: 'slow.test', port: String(port), host: url.host };
  const [error] = await new Promise<unknown[]>((resolve) => {
    createConnector(TRANSPORT, 400)(target, (...result) => resolve(result));
  });
  assert.equal((error as { code?: string }).code, code);
  const asked = ask();
  setTimeout(() => client.close(), 50);
  await assert.rejects(asked, /closed/);
});
