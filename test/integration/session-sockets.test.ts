/** What the main thread makes of a peer that is no registry in HTTP: answers that only a socket gives. */
import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { NEEDS_OPENSSL } from '../support/certificate.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { listen } from '../support/scripted-server.js';
import { startSession } from '../support/session.js';
import { tlsFront } from '../support/tls-front.js';

async function peer(t: TestContext, answer: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    answer(socket);
  });
  t.after(() => server.close());
  return listen(server);
}

test('a peer that does not speak HTTP is reported as such', async (t) => {
  const host = await peer(t, (socket) => socket.end('SSH-2.0-OpenSSH_9.6\r\n'));
  const error = await failureOf(startSession(t, host).session.getManifest('v1'));
  assert.equal(error.code, 'network-hopeless');
  assert.match(error.message, /does not speak HTTP/);
});

test(
  'a TLS server that answers plain HTTP with 400 is found, by concurrent requests too',
  NEEDS_OPENSSL,
  async (t) => {
    const [address, port] = (await tlsFront(t, (await startSandbox(t)).host)).split(':');
    let plainAsked = 0;
    const host = await peer(t, (socket) => {
      socket.once('data', (first) => {
        // The first byte of a TLS greeting.
        if (first[0] === 0x16) {
          const behind = connect({ host: address!, port: Number(port) }).on('error', () => {});
          behind.write(first);
          socket.pipe(behind).pipe(socket);
          return;
        }
        // The second question hears of it only when the first has long found the scheme.
        const answer = 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';
        setTimeout(() => socket.end(answer), plainAsked++ === 0 ? 0 : 200);
      });
    });
    const { session, reports } = startSession(t, host, { tlsVerify: false });
    await Promise.all([1, 2].map(() => session.getManifest('chunked-v1')));
    assert.equal(plainAsked, 2);
    assert.equal(session.origin, `https://${host}`);
    assert.deepEqual(reports.misses, []);
  },
);
