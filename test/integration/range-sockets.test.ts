/**
 * What a thread makes of HTTP as it comes off a socket: chunks, ends and resets in places where no registry of the sandbox has them, and a
 * taker that is slow, fails or is never reached. The ranges are asked for as a worker asks for them.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fetchBlob } from '../support/range.js';
import {
  type Answering,
  answerRange,
  askedRange,
  beginRange,
  breakAfter,
  patternBytes,
  type ScriptedServer,
  startServer,
} from '../support/scripted-server.js';

const BLOB = patternBytes(300_000);
const BROKEN = /broke off the connection$/;

async function serverFor(t: TestContext, answer: Answering): Promise<ScriptedServer> {
  const server = await startServer(answer);
  t.after(() => server.close());
  return server;
}

/** Fetches the blob, with `take` for each chunk, and returns how many requests and which misses that took. */
async function fetched(t: TestContext, answer: Answering, take?: (chunk: Buffer) => void | Promise<void>) {
  const server = await serverFor(t, answer);
  const options = { sizeBytes: BLOB.length, ...(take && { take }) };
  const { bytes, events } = await fetchBlob(t, server.origin, options);
  assert.ok(bytes.equals(BLOB));
  return { ranges: server.requests.map(({ range }) => range?.split(/[=-]/)[1]), misses: events.misses };
}

test('an empty range sends nothing, and one outside the blob is refused before anything is sent', async (t) => {
  const server = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const fetch = (range: readonly [number, number]) =>
    fetchBlob(t, server.origin, { sizeBytes: BLOB.length, range });
  assert.deepEqual((await fetch([5, 5])).totals, { requests: 0, receivedBytes: 0 });
  await assert.rejects(fetch([0, BLOB.length + 1]), { code: 'internal', message: /inside/ });
  assert.equal(server.requests.length, 0);
});

test('a chunked body that is longer than its range is refused, and one of the right length accepted', async (t) => {
  const answer = (moreBytes: number): Answering => {
    return (request, response) => {
      const { start, end } = askedRange(request);
      response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/*` });
      response.write(BLOB.subarray(start, start + 30));
      response.end(BLOB.subarray(start + 30, end + moreBytes));
    };
  };
  const range = [0, 100] as const;
  const right = await serverFor(t, answer(0));
  const { bytes } = await fetchBlob(t, right.origin, { sizeBytes: BLOB.length, range });
  assert.ok(bytes.equals(BLOB.subarray(0, 100)));
  const long = await serverFor(t, answer(1));
  const refused = fetchBlob(t, long.origin, { sizeBytes: BLOB.length, range });
  await assert.rejects(refused, { code: 'answer-unexpected', message: /longer than the range/ });
});

test('a body without a length that ends with its connection is accepted, and continued when it ended too early', async (t) => {
  const { ranges, misses } = await fetched(t, (request, response, nth) => {
    const { start, end } = askedRange(request);
    const socket = response.socket!;
    socket.write('HTTP/1.1 206 Partial Content\r\nConnection: close\r\n');
    socket.write(`Content-Range: bytes ${start}-${end - 1}/${BLOB.length}\r\n\r\n`);
    socket.end(BLOB.subarray(start, nth === 1 ? start + 1000 : end));
  });
  assert.deepEqual([ranges, misses.length], [['0', '1000'], 1]);
});

test('a 200 is skipped to the start of the range and closed at its end, and given up when its start never comes', async (t) => {
  const options = { sizeBytes: BLOB.length, range: [80_000, 120_000], timeoutMs: 3_600_000 } as const;
  // This answer never ends: only closing it does.
  const endless = await serverFor(t, (_request, response) => {
    response.writeHead(200, { 'content-length': BLOB.length }).write(BLOB.subarray(0, 200_000));
  });
  const { bytes, totals, events } = await fetchBlob(t, endless.origin, options);
  assert.ok(bytes.equals(BLOB.subarray(80_000, 120_000)));
  assert.ok(totals.receivedBytes >= 120_000 && totals.receivedBytes <= 200_000);
  assert.deepEqual([events.receivedBytes, events.misses], [totals.receivedBytes, []]);
  const short = await serverFor(t, (_request, response) => {
    response.writeHead(200, { 'content-length': BLOB.length });
    breakAfter(response, BLOB.subarray(0, 1000));
  });
  await assert.rejects(fetchBlob(t, short.origin, options), {
    code: 'network-hopeless',
    message: /ignores ranges/,
  });
  assert.equal(short.requests.length, 5);
});

test('a slow body is no silence', async (t) => {
  const server = await serverFor(t, (request, response) => {
    const body = beginRange(request, response, BLOB);
    let at = 0;
    const timer = setInterval(() => {
      response.write(body.subarray(at, ++at));
      if (at < body.length) return;
      clearInterval(timer);
      response.end();
    }, 50);
  });
  const options = { sizeBytes: BLOB.length, range: [0, 10], timeoutMs: 300 } as const;
  assert.deepEqual((await fetchBlob(t, server.origin, options)).events.misses, []);
});

test('a promise for every chunk brings every byte in order, one chunk at a time', async (t) => {
  let busy = false;
  await fetched(
    t,
    (request, response) => {
      const { start, end } = askedRange(request);
      response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/${BLOB.length}` });
      for (let at = start; at < end; at += 700) response.write(BLOB.subarray(at, Math.min(end, at + 700)));
      response.end();
    },
    async () => {
      assert.equal(busy, false);
      busy = true;
      await null;
      busy = false;
    },
  );
});

// undici 7 throws where nobody can catch it when such a connection was paused (nodejs/undici#5360).
for (const how of ['ends', 'is reset'] as const) {
  test(`a connection that is announced to close and ${how} while the consumer is busy is a miss`, async (t) => {
    const answer: Answering = (request, response, nth) => {
      if (nth > 1) return answerRange(request, response, BLOB);
      response.setHeader('connection', 'close');
      const body = beginRange(request, response, BLOB);
      const { socket } = request;
      const end = () => (how === 'ends' ? socket.destroySoon() : socket.resetAndDestroy());
      response.write(body.subarray(0, 5000), () => setTimeout(end, 50));
    };
    let busy: Promise<void> | undefined;
    const { ranges, misses } = await fetched(t, answer, () => (busy ??= sleep(150)));
    assert.deepEqual(ranges, ['0', '5000']);
    assert.equal(misses.length, 1);
    assert.match(misses[0]!, BROKEN);
  });
}

test('while a consumer is busy nothing is read, what the peer can send is bounded, and it is no silence', async (t) => {
  const large = Buffer.alloc(32 * 2 ** 20);
  let sentBytes = 0;
  const server = await serverFor(t, (request, response) => {
    const body = beginRange(request, response, large);
    const push = (): void => {
      while (sentBytes < body.length) {
        sentBytes += 65_536;
        if (!response.write(body.subarray(sentBytes - 65_536, sentBytes))) {
          response.once('drain', push);
          return;
        }
      }
      response.end();
    };
    push();
  });
  let busy = false;
  let sentWhileHeld: number | undefined;
  const take = (): Promise<void> | undefined => {
    assert.equal(busy, false);
    if (sentWhileHeld !== undefined) return undefined;
    busy = true;
    return sleep(400).then(() => {
      sentWhileHeld = sentBytes;
      busy = false;
    });
  };
  const { bytes, events } = await fetchBlob(t, server.origin, {
    sizeBytes: large.length,
    take,
    timeoutMs: 200,
  });
  assert.equal(bytes.length, large.length);
  // Kernel buffers of both sides of a loopback connection hold some MiB.
  assert.ok(sentWhileHeld! < 16 * 2 ** 20, `${sentWhileHeld} bytes sent`);
  assert.deepEqual(events.misses, []);
});

for (const [how, take] of [
  ['throws', () => assert.fail('bad frame')],
  ['rejects', () => Promise.reject(new TypeError('bad frame'))],
] as const) {
  test(`an error that a consumer ${how} with ends the range and closes the connection`, async (t) => {
    let closed = (): void => {};
    const isClosed = new Promise<void>((resolve) => {
      closed = resolve;
    });
    const server = await serverFor(t, (request, response) => {
      request.socket.on('close', closed);
      response.write(beginRange(request, response, BLOB).subarray(0, 100));
    });
    await assert.rejects(fetchBlob(t, server.origin, { sizeBytes: BLOB.length, take }), /bad frame/);
    await isClosed;
    assert.equal(server.requests.length, 1);
  });
}
