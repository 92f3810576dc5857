import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import type { Digest } from '../../src/format/digest.js';
import { fetchBlob } from '../support/range.js';
import { listen, recordEvents } from '../support/scripted-server.js';
import { startSession } from '../support/session.js';

/** The time between two bytes of a trickle: it never falls silent for as long as the idle timeout. */
const STEP_MS = 20;
const IDLE_TIMEOUT_MS = 200;

const BYTES = Buffer.from('{"schemaVersion":2}');
const DIGEST = `sha256:${createHash('sha256').update(BYTES).digest('hex')}` as Digest;
const WHOLE = `HTTP/1.1 200 OK\r\nContent-Length: ${BYTES.length}\r\n\r\n${BYTES}`;

/** What a server answers to a request: this, and after it `drip` again and again until the connection is closed. */
interface Script {
  readonly head: string;
  readonly drip?: string;
}

/** A server that trickles. `answer` is told the path and how many requests came before. */
async function tricklingServer(t: TestContext, answer: (path: string, nth: number) => Script) {
  const sockets = new Set<Socket>();
  let asked = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    socket.on('data', (request) => {
      const { head, drip } = answer(/^\S+ (\S+)/.exec(request.toString('latin1'))?.[1] ?? '', asked++);
      socket.write(head);
      if (drip === undefined) return;
      const timer = setInterval(() => socket.write(drip), STEP_MS);
      socket.on('close', () => clearInterval(timer));
    });
  });
  const host = await listen(server);
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host, asked: () => asked };
}

/** A session in plain HTTP with patience for `misses` misses, and those it had. */
function sessionFor(t: TestContext, host: string, misses = 0, idleTimeoutMs = IDLE_TIMEOUT_MS) {
  const timeouts = { connectTimeoutMs: IDLE_TIMEOUT_MS, idleTimeoutMs, answerTimeoutMs: idleTimeoutMs };
  const { session, reports } = startSession(t, host, { plainHttp: true, ...timeouts }, misses);
  return { session, reports: reports.misses };
}

/** The blob by a range, as a worker fetches it. */
async function rangeOf(t: TestContext, host: string, miss: (message: string) => void = assert.fail) {
  const options = { digest: DIGEST, sizeBytes: BYTES.length, timeoutMs: IDLE_TIMEOUT_MS };
  return (await fetchBlob(t, `http://${host}`, { ...options, events: recordEvents({ miss }) })).bytes;
}

const CHUNK = '1\r\nx\r\n';
const CHUNKED = 'Transfer-Encoding: chunked\r\n\r\n';

/** Heads of answers whose bodies nobody needs, each with a body that goes on for ever. */
const SPARE: readonly (readonly [name: string, head: string, drip: string])[] = [
  ['in chunks', CHUNKED, CHUNK],
  ['of a stated length', 'Content-Length: 999999\r\n\r\n', 'x'],
  ['to the end of the connection', '\r\n', 'x'],
  ['with chunk extensions', CHUNKED, `1;${'a'.repeat(100)}\r\nx\r\n`],
];

// All of them wait most of their time.
describe('what trickles is not waited for', { concurrency: true }, () => {
  for (const [name, rest, drip] of SPARE) {
    test(`the trickling body of a redirect or a refusal ${name} is not waited for`, async (t) => {
      const { host, asked } = await tricklingServer(t, (path) => {
        if (path.startsWith('/storage/')) return { head: WHOLE };
        if (path.endsWith('/none')) return { head: `HTTP/1.1 404 Not Found\r\n${rest}`, drip };
        return { head: `HTTP/1.1 307 Elsewhere\r\nLocation: /storage/x\r\n${rest}`, drip };
      });
      const { session } = sessionFor(t, host);
      assert.deepEqual((await session.getManifest('v1')).bytes, BYTES);
      await assert.rejects(session.getManifest('none'), { code: 'image-not-found' });
      assert.deepEqual(await rangeOf(t, host), BYTES);
      // Two redirects with what they lead to, and a refusal that is asked about once more, with schema 1.
      assert.equal(asked(), 6);
    });
  }

  test('a challenge whose body trickles is answered at once, and so is the refusal of a worker', async (t) => {
    const { host } = await tricklingServer(t, (path, nth) => {
      if (path.startsWith('/token'))
        return { head: WHOLE.replace(BYTES.toString(), '{"token":"token-ab"}').replace('19', '20') };
      if (nth > 0 && path.includes('/manifests/')) return { head: WHOLE };
      const challenge = `WWW-Authenticate: Bearer realm="http://${host}/token"\r\n`;
      return { head: `HTTP/1.1 401 Unauthorized\r\n${challenge}${CHUNKED}`, drip: CHUNK };
    });
    const { session } = sessionFor(t, host);
    assert.deepEqual((await session.getManifest('v1')).bytes, BYTES);
    await assert.rejects(rangeOf(t, host), { code: 'unauthorized' });
  });

  /** Interim answers that a server may repeat for ever before the one that counts (RFC 9110, 15.2). */
  for (const interim of ['100 Continue', '102 Processing', '103 Early Hints', '199 Whatever']) {
    test(`a flood of ${interim} is silence, on the main thread and in a worker`, async (t) => {
      const drip = `HTTP/1.1 ${interim}\r\nLink: </x>\r\n\r\n`;
      const { host } = await tricklingServer(t, () => ({ head: drip, drip }));
      const { session, reports } = sessionFor(t, host, 1);
      await assert.rejects(session.getManifest('v1'), { code: 'network-hopeless' });
      assert.equal(reports.length, 2);
      const misses: string[] = [];
      const miss = (message: string) => {
        misses.push(message);
        if (misses.length === 2) throw new Error('enough');
      };
      await assert.rejects(rangeOf(t, host, miss), /enough/);
    });
  }

  test('a protocol that was not requested is no response, and what follows is not read', async (t) => {
    const head = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n';
    const { host } = await tricklingServer(t, () => ({ head, drip: 'x' }));
    const { session } = sessionFor(t, host);
    await assert.rejects(session.getManifest('v1'), { code: 'network-hopeless' });
    await assert.rejects(
      rangeOf(t, host, () => {
        throw new Error('enough');
      }),
    );
  });

  test('a response to HEAD has no body, whatever follows its headers', async (t) => {
    const { host } = await tricklingServer(t, (_path, nth) => {
      if (nth > 0) return { head: WHOLE };
      return { head: `HTTP/1.1 200 OK\r\nDocker-Content-Digest: ${DIGEST}\r\n${CHUNKED}`, drip: CHUNK };
    });
    const { session } = sessionFor(t, host);
    assert.equal(await session.headManifest('v1'), DIGEST);
    assert.deepEqual((await session.getManifest('v1')).bytes, BYTES);
  });

  test('headers that trickle are silence', async (t) => {
    const { host } = await tricklingServer(t, () => ({ head: 'HTTP/1.1 200 OK\r\n', drip: 'a' }));
    const { session } = sessionFor(t, host);
    await assert.rejects(session.getManifest('v1'), { code: 'network-hopeless' });
    await assert.rejects(
      rangeOf(t, host, () => {
        throw new Error('enough');
      }),
      /enough/,
    );
  });

  test('a small response that trickles takes too long, and five of them end the pull', async (t) => {
    const heads = [`HTTP/1.1 200 OK\r\n${CHUNKED}`, 'HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n'];
    const trickle = async (head: string) => {
      const drip = head.includes('chunked') ? CHUNK : 'x';
      const { host, asked } = await tricklingServer(t, () => ({ head, drip }));
      const { session, reports } = sessionFor(t, host, 1000, 100);
      await assert.rejects(session.getManifest('v1'), {
        code: 'network-hopeless',
        message: /too long.* \(5 times for the same answer\)$/,
      });
      assert.equal(asked(), 5);
      // A busy machine may be silent for as long as the idle timeout.
      assert.ok(reports.some((message) => message === `${host} took too long to send a small response`));
    };
    await Promise.all(heads.map(trickle));
  });
});
