import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../../src/format/error.js';
import type { MainMessage } from '../../src/pool/messages.js';
import { TargetRenewals } from '../../src/pull/target-renewals.js';
import { Concurrency, createLimits, sharedClockMs } from '../../src/registry/concurrency.js';
import { createLacking } from '../../src/registry/endpoint-choice.js';
import { fetchRange } from '../../src/registry/range.js';
import { createRangeClient, type RangeClientOptions } from '../../src/registry/range-client.js';
import { bookWait, createWaitBudget } from '../../src/registry/retry-after.js';
import { certificates, type KeyPair, NEEDS_OPENSSL } from '../support/certificate.js';
import {
  type Answering,
  answerRange,
  askedRange,
  beginRange,
  breakAfter,
  listen,
  patternBytes,
  type RecordedEvents,
  recordEvents,
  type ScriptedServer,
  startServer,
} from '../support/scripted-server.js';

const BLOB = patternBytes(300_000);
const DIGEST = `sha256:${'ab'.repeat(32)}`;
const PATH = `/v2/team/app/blobs/${DIGEST}`;

type Take = (chunk: Buffer) => void | Promise<void>;

async function serverFor(t: TestContext, answer: Answering, tls?: KeyPair): Promise<ScriptedServer> {
  const server = await startServer(answer, tls);
  t.after(() => server.close());
  return server;
}

function endpoint(tlsVerify: boolean) {
  return { transport: { host: '127.0.0.1', tlsVerify, environment: {} }, repository: 'team/app' };
}

const UNVERIFIED = { endpoints: [endpoint(false)] };

function clientFor(t: TestContext, options: Partial<RangeClientOptions> = {}) {
  const { endpoints = [endpoint(true)] } = options;
  const client = createRangeClient({
    connections: 4,
    connectTimeoutMs: 2000,
    idleTimeoutMs: 2000,
    answerTimeoutMs: 2000,
    userAgent: 'zpull-test',
    endpoints,
    elsewhere: { tlsVerify: true, environment: {} },
    lacking: createLacking(),
    limits: createLimits(endpoints.length, 4),
    waits: createWaitBudget(),
    ...options,
  });
  t.after(() => client.close());
  return client;
}

/** For a range that must not become the whole blob. */
const unwanted = (): Take => assert.fail('the whole blob came');

/** Fetches `[start, end)` of BLOB and returns the bytes, the totals and what was reported. */
async function fetch(
  client: ReturnType<typeof createRangeClient>,
  origin: string,
  [start, end]: readonly [number, number],
  more: {
    events?: RecordedEvents;
    take?: Take;
    path?: string;
    sizeBytes?: number;
    anonymous?: true;
    wholeInstead?: () => Take;
  } = {},
) {
  const chunks: Buffer[] = [];
  const events = more.events ?? recordEvents();
  const totals = await fetchRange(client, {
    blob: {
      url: `${origin}${more.path ?? PATH}`,
      digest: DIGEST,
      sizeBytes: more.sizeBytes ?? BLOB.length,
      ...(more.anonymous && { anonymous: more.anonymous }),
    },
    start,
    end,
    ...(more.wholeInstead && { wholeInstead: more.wholeInstead }),
    onBytes: (chunk) => {
      chunks.push(chunk);
      return more.take?.(chunk);
    },
    events,
  });
  return { bytes: Buffer.concat(chunks), totals, events };
}

function failsWith(code: string, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof PullError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    assert.doesNotMatch(`${error.message} ${error.hint ?? ''}`, /secret/);
    return true;
  };
}

test('a range is asked for once and arrives whole', async (t) => {
  const server = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const { bytes, totals, events } = await fetch(clientFor(t), server.origin, [1000, 250_000]);
  assert.ok(bytes.equals(BLOB.subarray(1000, 250_000)));
  assert.deepEqual(totals, { requests: 1, receivedBytes: 249_000 });
  assert.equal(events.receivedBytes, 249_000);
  assert.equal(events.requests, 1);
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    ['bytes=1000-249999'],
  );
});

test('an empty range asks for nothing', async (t) => {
  const server = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const { totals } = await fetch(clientFor(t), server.origin, [5, 5]);
  assert.deepEqual(totals, { requests: 0, receivedBytes: 0 });
  assert.equal(server.asked.length, 0);
});

test('a range outside the blob is refused before anything is sent', async (t) => {
  await assert.rejects(
    fetch(clientFor(t), 'http://127.0.0.1:1', [0, BLOB.length + 1]),
    failsWith('internal', /inside/),
  );
});

test('a body that breaks off goes on from the first byte not received', async (t) => {
  const cuts = [70_000, 1, 100_000];
  const server = await serverFor(t, (request, response, nth) => {
    const body = beginRange(request, response, BLOB);
    const cut = cuts[nth - 1];
    if (cut === undefined) response.end(body);
    else breakAfter(response, body.subarray(0, cut));
  });
  const { bytes, totals, events } = await fetch(clientFor(t), server.origin, [10, 290_010]);
  assert.ok(bytes.equals(BLOB.subarray(10, 290_010)));
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    ['bytes=10-290009', 'bytes=70010-290009', 'bytes=70011-290009', 'bytes=170011-290009'],
  );
  assert.equal(totals.receivedBytes, 290_000);
  assert.equal(events.misses.length, 3);
  assert.match(events.misses[0]!, /broke off/);
});

test('a body that stalls is one miss and goes on where it stalled', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    const body = beginRange(request, response, BLOB);
    if (nth > 1) response.end(body);
    else response.write(body.subarray(0, 50_000));
  });
  const { bytes, events } = await fetch(clientFor(t, { idleTimeoutMs: 150 }), server.origin, [0, 100_000]);
  assert.ok(bytes.equals(BLOB.subarray(0, 100_000)));
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    ['bytes=0-99999', 'bytes=50000-99999'],
  );
  assert.equal(events.misses.length, 1);
  assert.match(events.misses[0]!, /sent nothing for too long/);
});

test('an answer that does not begin is one miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth > 1) answerRange(request, response, BLOB);
  });
  const { bytes, events } = await fetch(clientFor(t, { answerTimeoutMs: 150 }), server.origin, [0, 9]);
  assert.ok(bytes.equals(BLOB.subarray(0, 9)));
  assert.equal(events.misses.length, 1);
  assert.match(events.hints[0] ?? '', /--answer-timeout/);
});

test('a connection that is not made is a miss, and what miss rejects with ends the range', async (t) => {
  const end = new PullError('network-hopeless', 'karma ran out');
  const events = recordEvents({
    miss: () => {
      throw end;
    },
  });
  await assert.rejects(fetch(clientFor(t), 'http://127.0.0.1:1', [0, 9], { events }), end);
  assert.match(events.misses[0]!, /127\.0\.0\.1:1 refuses the connection/);
});

test('a peer that accepts and does not speak TLS in time is a connect timeout', async (t) => {
  const silent = createServer(() => {});
  const host = await listen(silent);
  t.after(() => silent.close());
  const events = recordEvents({
    miss: () => {
      throw new PullError('network-hopeless', 'enough');
    },
  });
  const client = clientFor(t, { connectTimeoutMs: 200 });
  await assert.rejects(
    fetch(client, `https://${host}`, [0, 9], { events }),
    failsWith('network-hopeless', /enough/),
  );
  assert.match(events.misses[0]!, /cannot connect to .* in time/);
});

test('a 200 to a range is used: skipped to the start and stopped at the end', {
  timeout: 20_000,
}, async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(200, { 'content-length': BLOB.length });
    response.write(BLOB.subarray(0, 200_000));
  });
  // The answer never ends: only stopping it does.
  const client = clientFor(t, { idleTimeoutMs: 3_600_000 });
  const { bytes, totals, events } = await fetch(client, server.origin, [80_000, 120_000]);
  assert.ok(bytes.equals(BLOB.subarray(80_000, 120_000)));
  assert.ok(totals.receivedBytes >= 120_000 && totals.receivedBytes <= 200_000);
  assert.equal(events.receivedBytes, totals.receivedBytes);
  assert.deepEqual(events.misses, []);
});

test('a 200 of another length than the manifest says is refused', async (t) => {
  const server = await serverFor(t, (_request, response) => response.end(BLOB.subarray(1)));
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 100]),
    failsWith('metadata-malformed', /has 299999 bytes .* says 300000/),
  );
});

test('a server that ignores ranges and never reaches the wanted part is given up', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(200, { 'content-length': BLOB.length });
    breakAfter(response, BLOB.subarray(0, 1000));
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [5000, 6000]),
    failsWith('network-hopeless', /ignores ranges/),
  );
  assert.equal(server.asked.length, 5);
});

for (const [what, contentRange, lengthBytes] of [
  ['of another start', 'bytes 1-99/300000', undefined],
  ['shifted by some bytes', 'bytes 7-106/300000', 100],
  ['with nonsense for a range', 'bytes zero', 100],
  ['without a range', undefined, 100],
  ['of another length', 'bytes 0-99/300000', 120],
] as const) {
  const contradict: Answering = (_request, response) => {
    const headers = contentRange === undefined ? {} : { 'content-range': contentRange };
    const length = lengthBytes === undefined ? {} : { 'content-length': lengthBytes };
    response.writeHead(206, { ...headers, ...length });
    response.write('x');
  };

  test(`a 206 ${what} is a failure like any other, and final the third time`, async (t) => {
    const server = await serverFor(t, (request, response, nth) => {
      if (nth === 1) contradict(request, response, nth);
      else answerRange(request, response, BLOB);
    });
    const { bytes, events } = await fetch(clientFor(t), server.origin, [0, 100]);
    assert.ok(bytes.equals(BLOB.subarray(0, 100)));
    assert.equal(events.misses.length, 1);
    const wrong = await serverFor(t, contradict);
    await assert.rejects(
      fetch(clientFor(t), wrong.origin, [0, 100]),
      failsWith('answer-unexpected', /answers for bytes 0 to 100 of sha256/),
    );
    assert.equal(wrong.asked.length, 3);
  });
}

test('a 206 of another blob size is refused', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-99/300001', 'content-length': 100 });
    response.write('x');
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 100]),
    failsWith('metadata-malformed', /300001/),
  );
});

test('a mirror whose answer contradicts itself is passed over without a miss', async (t) => {
  const shifted: Answering = (_request, response) => {
    response.writeHead(206, { 'content-range': 'bytes 5-14/300000' }).end(BLOB.subarray(5, 15));
  };
  const { outcome, mirror, registry } = await atTwo(t, shifted, GIVE);
  assert.deepEqual(await outcome(), ['came', false, false]);
  assert.deepEqual([mirror.asked.length, registry.asked.length], [1, 1]);
});

test('a 206 with less than was asked for is taken, and the rest asked for without a miss', async (t) => {
  const server = await serverFor(t, (request, response) => {
    const { start, end } = askedRange(request);
    const until = Math.min(end, start + 40_000);
    response.writeHead(206, { 'content-range': `bytes ${start}-${until - 1}/${BLOB.length}` });
    response.end(BLOB.subarray(start, until));
  });
  const { bytes, events, totals } = await fetch(clientFor(t), server.origin, [10, 100_010]);
  assert.ok(bytes.equals(BLOB.subarray(10, 100_010)));
  assert.deepEqual(events.misses, []);
  assert.deepEqual(totals, { requests: 3, receivedBytes: 100_000 });
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    ['bytes=10-100009', 'bytes=40010-100009', 'bytes=80010-100009'],
  );
});

test('a chunked 206 that is longer than it says is refused in the end, and one of the right length taken', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    const { start, end } = askedRange(request);
    response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/*` });
    response.write(BLOB.subarray(start, start + 30));
    response.end(BLOB.subarray(start + 30, nth === 1 ? end : end + 1));
  });
  const client = clientFor(t);
  const { bytes } = await fetch(client, server.origin, [0, 100]);
  assert.ok(bytes.equals(BLOB.subarray(0, 100)));
  await assert.rejects(
    fetch(client, server.origin, [0, 100]),
    failsWith('answer-unexpected', /longer than the range/),
  );
});

test('a body without a length that ends with its connection is taken, and gone on with when it ended too soon', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    const { start, end } = askedRange(request);
    const socket = response.socket!;
    socket.write(`HTTP/1.1 206 Partial Content\r\nConnection: close\r\n`);
    socket.write(`Content-Range: bytes ${start}-${end - 1}/${BLOB.length}\r\n\r\n`);
    socket.end(BLOB.subarray(start, nth === 1 ? start + 1000 : end));
  });
  const { bytes, events } = await fetch(clientFor(t), server.origin, [10, 5000]);
  assert.ok(bytes.equals(BLOB.subarray(10, 5000)));
  assert.equal(events.misses.length, 1);
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    ['bytes=10-4999', 'bytes=1010-4999'],
  );
});

test('encoded content is refused', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-9/300000', 'content-encoding': 'gzip' });
    response.end();
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    failsWith('answer-unexpected', /encoded/),
  );
});

test('a redirect keeps the range, drops Authorization and is remembered', async (t) => {
  const storage = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const registry = await serverFor(t, (_request, response) => {
    response.writeHead(307, { location: `${storage.origin}/data?sig=secret` }).end('moved');
  });
  const client = clientFor(t);
  const events = recordEvents({ authorize: () => 'Bearer one' });
  const { totals } = await fetch(client, registry.origin, [0, 10], { events });
  const { bytes } = await fetch(client, registry.origin, [10, 30], { events });
  assert.ok(bytes.equals(BLOB.subarray(10, 30)));
  assert.equal(totals.requests, 1);
  assert.equal(events.requests, 2);
  assert.deepEqual(
    registry.asked.map(({ range, authorization }) => [range, authorization]),
    [['bytes=0-9', 'Bearer one']],
  );
  assert.deepEqual(
    storage.asked.map(({ url, range, authorization }) => [url, range, authorization]),
    [
      ['/data?sig=secret', 'bytes=0-9', undefined],
      ['/data?sig=secret', 'bytes=10-29', undefined],
    ],
  );
});

/** Lines about requests, with names for the hosts and without times. */
function plain({ lines }: RecordedEvents, hosts: Readonly<Record<string, ScriptedServer>>): string[] {
  return lines.map((line) =>
    Object.entries(hosts)
      .reduce((text, [name, { host }]) => text.replaceAll(host, name), line)
      .replaceAll(PATH, '/blob')
      .replace(/, \d+ ms/, ''),
  );
}

test('each hop of a range has a line, and what is asked for again says why, without any secret', async (t) => {
  const storage = await serverFor(t, (request, response, nth) => {
    if (nth === 2) response.writeHead(403).end('expired');
    else if (nth === 3) response.writeHead(500).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    if (nth === 1) response.writeHead(401).end();
    else response.writeHead(307, { location: `${storage.origin}/data?sig=secret` }).end('moved');
  });
  const client = clientFor(t);
  const events = recordEvents({ authorize: (stale) => `Bearer secret${stale === undefined ? '' : '2'}` });
  await fetch(client, registry.origin, [0, 10], { events });
  await fetch(client, registry.origin, [10, 30], { events });
  assert.deepEqual(plain(events, { registry, storage }), [
    'GET registry/blob bytes=0-9: 401, 0 bytes; again, as registry wants a new token',
    'GET registry/blob bytes=0-9: 307, 0 bytes',
    'GET storage/data bytes=0-9: 206, 10 bytes',
    'GET storage/data bytes=10-29: 403, 0 bytes; again, as the target of a redirect has expired',
    'GET registry/blob bytes=10-29: 307, 0 bytes',
    'GET storage/data bytes=10-29: 500, 0 bytes; again, as storage answers 500',
    'GET registry/blob bytes=10-29: 307, 0 bytes',
    'GET storage/data bytes=10-29: 206, 20 bytes',
  ]);
});

test('an answer that is refused, and one that breaks off, have a line with the reason', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) breakAfter(response, beginRange(request, response, BLOB).subarray(0, 4));
    else response.writeHead(206, { 'content-encoding': 'gzip' }).end('x');
  });
  const events = recordEvents();
  await assert.rejects(fetch(clientFor(t), server.origin, [0, 10], { events }));
  const [broken, refused, ...others] = plain(events, { server });
  assert.match(broken ?? '', /^GET server\/blob bytes=0-9: 206, 4 bytes; again, as ./);
  assert.equal(
    refused,
    `GET server/blob bytes=4-9: 206, 0 bytes; given up, as server answers for bytes 4 to 10 of ${DIGEST} with encoded content`,
  );
  assert.deepEqual(others, []);
});

test('a failure that is final is not said to be asked for again', NEEDS_OPENSSL, async (t) => {
  const server = await serverFor(t, () => {}, certificates().server);
  const events = recordEvents();
  await assert.rejects(fetch(clientFor(t), server.origin, [0, 10], { events }));
  assert.match(plain(events, { server })[0] ?? '', /: no answer, 0 bytes; given up, as .*certificate/);
});

test('a redirect back to the registry does not bring Authorization back', async (t) => {
  const storage = await serverFor(t, (_request, response) => {
    response.writeHead(302, { location: `${registry.origin}/elsewhere` }).end();
  });
  const registry: ScriptedServer = await serverFor(t, (request, response) => {
    if (request.url === '/elsewhere') answerRange(request, response, BLOB);
    else response.writeHead(302, { location: storage.origin }).end();
  });
  const events = recordEvents({ authorize: () => 'Bearer one' });
  await fetch(clientFor(t), registry.origin, [0, 10], { events });
  assert.deepEqual(
    registry.asked.map(({ authorization }) => authorization),
    ['Bearer one', undefined],
  );
});

for (const status of [400, 401, 403, 410]) {
  test(`a remembered target that has expired (${status}) is asked for again at the registry`, async (t) => {
    const storage = await serverFor(t, (request, response) => {
      if (request.url === '/1' && storage.asked.length > 1) response.writeHead(status).end('expired');
      else answerRange(request, response, BLOB);
    });
    const registry = await serverFor(t, (_request, response, nth) => {
      response.writeHead(307, { location: `${storage.origin}/${nth}` }).end();
    });
    const client = clientFor(t);
    await fetch(client, registry.origin, [0, 10]);
    const { bytes, events } = await fetch(client, registry.origin, [10, 30]);
    assert.ok(bytes.equals(BLOB.subarray(10, 30)));
    assert.deepEqual(events.misses, []);
    assert.deepEqual(
      storage.asked.map(({ url }) => url),
      ['/1', '/1', '/2'],
    );
  });
}

test('a signed URL that expires every 20 requests is renewed once for all ranges each time', async (t) => {
  const uses = new Map<string, number>();
  const storage = await serverFor(t, (request, response) => {
    const used = (uses.get(request.url!) ?? 0) + 1;
    uses.set(request.url!, used);
    if (used > 20) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: `${storage.origin}/${nth}?sig=secret` }).end();
  });
  const client = clientFor(t);
  const events = recordEvents();
  // The first finds the target; from then on four ranges are under way at a time.
  await fetch(client, registry.origin, [0, 1], { events });
  const starts = Array.from({ length: 99 }, (_, i) => i + 1);
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      for (let start = starts.shift(); start !== undefined; start = starts.shift()) {
        const { bytes } = await fetch(client, registry.origin, [start, start + 1], { events });
        assert.ok(bytes.equals(BLOB.subarray(start, start + 1)));
      }
    }),
  );
  assert.equal(registry.asked.length, 5);
  assert.deepEqual(events.misses, []);
});

/** As many clients as threads, which share renewals as a pull's workers do. */
function sharingClients(t: TestContext, count: number) {
  const told = new EventEmitter();
  const lacking = createLacking();
  const renewals = new TargetRenewals((message) => queueMicrotask(() => told.emit('message', message)));
  return Array.from({ length: count }, (_, thread) => {
    const expired = (blobUrl: string, target: URL | undefined) =>
      new Promise<URL | 'renew' | undefined>((resolve) => {
        const take = (message: MainMessage) => {
          if (message.message === 'renew-target') {
            if (message.thread !== thread) return;
            resolve('renew');
          } else if (message.message === 'target') {
            if (message.thread !== undefined && message.thread !== thread) return;
            resolve(message.target === undefined ? undefined : new URL(message.target));
          }
          told.off('message', take);
        };
        told.on('message', take);
        renewals.expired({ blobUrl, target: target?.href, thread });
      });
    return clientFor(t, {
      lacking,
      sharedTargets: {
        expired,
        renewed: (blobUrl, target) => renewals.renewed(blobUrl, target?.href),
        failed: (blobUrl, target) => renewals.failed(blobUrl, target.href),
      },
    });
  });
}

test('a target that has expired is asked for once for all threads', async (t) => {
  let valid = 0;
  const storage = await serverFor(t, (request, response) => {
    if (Number(request.url!.slice(1)) <= valid) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: `${storage.origin}/${nth}` }).end();
  });
  const clients = sharingClients(t, 3);
  const events = recordEvents();
  for (const client of clients) await fetch(client, registry.origin, [0, 1], { events });
  for (let round = 1; round <= 3; round++) {
    const before = registry.asked.length;
    valid = before;
    const all = clients.flatMap((client) =>
      [1, 2, 3].map((start) => fetch(client, registry.origin, [start, start + 1], { events })),
    );
    for (const [i, { bytes }] of (await Promise.all(all)).entries()) {
      assert.deepEqual([...bytes], [BLOB[1 + (i % 3)]]);
    }
    assert.equal(registry.asked.length, before + 1, `round ${round}`);
  }
  assert.deepEqual(events.misses, []);
});

test('of ranges that begin at once one asks the registry where the blob is, for all threads', async (t) => {
  const storage = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const registry = await serverFor(t, (_request, response, nth) => {
    setTimeout(() => response.writeHead(307, { location: `${storage.origin}/${nth}` }).end(), 20);
  });
  const all = sharingClients(t, 3).flatMap((client) =>
    [1, 2, 3, 4].map((start) => fetch(client, registry.origin, [start, start + 1])),
  );
  for (const [i, { bytes }] of (await Promise.all(all)).entries()) {
    assert.deepEqual([...bytes], [BLOB[1 + (i % 4)]]);
  }
  assert.equal(registry.asked.length, 1);
  assert.equal(storage.asked.length, 12);
});

test('the first range that a registry serves itself lets all others go, and no later blob waits', async (t) => {
  let inFlight = 0;
  let most = 0;
  const registry = await serverFor(t, (request, response) => {
    most = Math.max(most, ++inFlight);
    setTimeout(() => {
      inFlight--;
      answerRange(request, response, BLOB);
    }, 50);
  });
  const client = clientFor(t, { connections: 4 });
  const begin = (path: string) =>
    [1, 2, 3, 4].map((start) => fetch(client, registry.origin, [start, 10], { path }));
  await Promise.all(begin('/v2/a/blobs/1'));
  assert.equal(most, 3);
  await Promise.all(begin('/v2/a/blobs/2'));
  assert.equal(most, 4);
});

test('URLs that are good for one request are not remembered once that has shown', async (t) => {
  const used = new Set<string>();
  const storage = await serverFor(t, (request, response) => {
    if (used.has(request.url!)) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
    used.add(request.url!);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: `${storage.origin}/${nth}?sig=secret` }).end();
  });
  const clients = sharingClients(t, 2);
  for (let round = 0; round < 10; round++) {
    const all = clients.flatMap((client) =>
      [1, 2, 3, 4].map((start) => fetch(client, registry.origin, [start, start + 1])),
    );
    for (const { events } of await Promise.all(all)) assert.deepEqual(events.misses, []);
  }
  const refused = storage.asked.length - 80;
  assert.ok(refused <= 2 * 7, `${refused} refused`);
  assert.equal(registry.asked.length, 80);
});

test('who waits for a new target goes on when the registry begins to answer itself', async (t) => {
  let release = (): void => {};
  const storage = await serverFor(t, (request, response) => {
    if (storage.asked.length > 1) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(307, { location: `${storage.origin}/1` }).end();
    else if (nth > 2) answerRange(request, response, BLOB);
    else {
      const body = beginRange(request, response, BLOB);
      response.write(body.subarray(0, 1));
      release = () => response.end(body.subarray(1));
    }
  });
  const client = clientFor(t);
  await fetch(client, registry.origin, [0, 1]);
  const first = fetch(client, registry.origin, [1, 50_000]);
  const second = fetch(client, registry.origin, [50_000, 50_010]);
  await Promise.race([first, second]);
  release();
  const [one, two] = await Promise.all([first, second]);
  assert.equal(one.bytes.length + two.bytes.length, 50_009);
  assert.deepEqual([...one.events.misses, ...two.events.misses], []);
});

test('when the thread that asks for a new target fails, the others ask for themselves', async (t) => {
  const storage = await serverFor(t, (request, response) => {
    if (request.url === '/1' && storage.asked.length > 2) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    if (nth === 2) response.writeHead(404).end();
    else response.writeHead(307, { location: `${storage.origin}/${nth}` }).end();
  });
  const clients = sharingClients(t, 2);
  for (const client of clients) await fetch(client, registry.origin, [0, 1]);
  const outcomes = await Promise.allSettled(clients.map((client) => fetch(client, registry.origin, [1, 2])));
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('who waits for a new target goes on when the range that was to ask for it turns to another endpoint', {
  timeout: 20_000,
}, async (t) => {
  const limits = createLimits(2, 4);
  const storage = await serverFor(t, (request, response) => {
    if (storage.asked.length > 1) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const mirror = await serverFor(t, (_request, response, nth) => {
    if (nth === 1) response.writeHead(307, { location: `${storage.origin}/1` }).end();
    else response.writeHead(500).end();
  });
  const registry = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const client = clientFor(t, {
    endpoints: [endpoint(true), endpoint(true)],
    limits,
    waits: createWaitBudget(),
  });
  const origins = ['', registry.origin];
  await fetch(client, mirror.origin, [0, 1], { events: recordEvents({ origins }) });
  const begin = (start: number) =>
    fetch(client, mirror.origin, [start, start + 1], { events: recordEvents({ origins }) });
  // One range has leave to ask and others wait for it, when the mirror asks to be left alone for longer than anybody waits.
  const waiting: ReturnType<typeof begin>[] = [];
  const expired = client.targets.expired.bind(client.targets);
  client.targets.expired = async (...args) => {
    const leads = await expired(...args);
    waiting.push(begin(2), begin(3));
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    new Concurrency(limits, 0).throttled(300_000, sharedClockMs());
    return leads;
  };
  assert.deepEqual([...(await begin(1)).bytes], [BLOB[1]]);
  for (const [i, { bytes }] of (await Promise.all(waiting)).entries())
    assert.deepEqual([...bytes], [BLOB[i + 2]]);
});

test('a range for which others wait asks, although more are in flight than may be', {
  timeout: 10_000,
}, async (t) => {
  const limits = createLimits(1, 4);
  const storage = await serverFor(t, (request, response) => {
    if (request.url === '/1' && storage.asked.length > 1) response.writeHead(403).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: `${storage.origin}/${nth}` }).end();
  });
  const client = clientFor(t, { limits });
  await fetch(client, registry.origin, [0, 1]);
  const waiting: ReturnType<typeof fetch>[] = [];
  const expired = client.targets.expired.bind(client.targets);
  client.targets.expired = async (...args) => {
    const leads = await expired(...args);
    waiting.push(...[2, 3].map((start) => fetch(client, registry.origin, [start, start + 1])));
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    // Two waves, a while ago.
    for (const agoMs of [4000, 2000]) new Concurrency(limits, 0).throttled(0, sharedClockMs() - agoMs);
    return leads;
  };
  assert.deepEqual([...(await fetch(client, registry.origin, [1, 2])).bytes], [BLOB[1]]);
  await Promise.all(waiting);
});

test('when the range that renews a target fails, the others ask for themselves', async (t) => {
  const storage = await serverFor(t, (request, response) => {
    if (request.url === '/1' && storage.asked.length > 1) response.writeHead(410).end();
    else answerRange(request, response, BLOB);
  });
  const registry = await serverFor(t, (_request, response, nth) => {
    if (nth === 2) response.writeHead(404).end();
    else response.writeHead(307, { location: `${storage.origin}/${nth}` }).end();
  });
  const client = clientFor(t);
  await fetch(client, registry.origin, [0, 1]);
  const outcomes = await Promise.allSettled(
    [1, 2, 3].map((start) => fetch(client, registry.origin, [start, start + 1])),
  );
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'fulfilled', 'rejected']);
});

test('a fresh target that refuses is final, and its signature is not told', async (t) => {
  const storage = await serverFor(t, (_request, response) => response.writeHead(403).end());
  const registry = await serverFor(t, (_request, response) => {
    response.writeHead(307, { location: `${storage.origin}/x?sig=secret` }).end();
  });
  await assert.rejects(
    fetch(clientFor(t), registry.origin, [0, 10]),
    failsWith('unauthorized', /denies access/),
  );
});

test('a sixth redirect is refused', async (t) => {
  const server = await serverFor(t, (_request, response, nth) => {
    response.writeHead(302, { location: `/${nth}?sig=secret` }).end();
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    failsWith('redirect-refused', /more than 5 times/),
  );
  assert.equal(server.asked.length, 6);
});

test('a redirect from https to http is refused', NEEDS_OPENSSL, async (t) => {
  const location = 'http://127.0.0.1:1/?sig=secret';
  const server = await serverFor(
    t,
    (_request, response) => response.writeHead(307, { location }).end(),
    certificates().server,
  );
  const client = clientFor(t, UNVERIFIED);
  await assert.rejects(fetch(client, server.origin, [0, 10]), failsWith('redirect-refused', /to plain http/));
});

test('a range comes over TLS, and not with a certificate that is not trusted', NEEDS_OPENSSL, async (t) => {
  const server = await serverFor(
    t,
    (request, response) => answerRange(request, response, BLOB),
    certificates().server,
  );
  const { bytes } = await fetch(clientFor(t, UNVERIFIED), server.origin, [7, 299_000], {
    take: (chunk) => (chunk.length % 2 === 0 ? Promise.resolve() : undefined),
  });
  assert.ok(bytes.equals(BLOB.subarray(7, 299_000)));
  const events = recordEvents();
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10], { events }),
    failsWith('network-hopeless', /certificate of .* is not trusted/),
  );
  assert.deepEqual(events.misses, []);
});

test('a 401 renews the token once, with the value that was refused', async (t) => {
  const server = await serverFor(t, (request, response) => {
    if (request.headers.authorization === 'Bearer new') answerRange(request, response, BLOB);
    else response.writeHead(401).end();
  });
  const events = recordEvents({ authorize: (stale) => (stale === undefined ? 'Bearer old' : 'Bearer new') });
  const { bytes, totals } = await fetch(clientFor(t), server.origin, [0, 10], { events });
  assert.ok(bytes.equals(BLOB.subarray(0, 10)));
  assert.deepEqual(events.authorizations, [undefined, 'Bearer old']);
  assert.equal(totals.requests, 2);
  assert.deepEqual(events.misses, []);
});

test('a token that is refused as soon as it is new ends the range', async (t) => {
  const server = await serverFor(t, (_request, response) => response.writeHead(401).end());
  const events = recordEvents({ authorize: () => 'Bearer x' });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10], { events }),
    failsWith('unauthorized', /denies access to team\/app$/),
  );
  assert.deepEqual(events.authorizations, [undefined, 'Bearer x']);
});

test('a blob that lies elsewhere is asked for without credentials, and they are not asked for either', async (t) => {
  const server = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const events = recordEvents({ authorize: () => 'Bearer secret' });
  const { bytes } = await fetch(clientFor(t), server.origin, [0, 300], { events, anonymous: true });
  assert.ok(bytes.equals(BLOB.subarray(0, 300)));
  const refusing = await serverFor(t, (_request, response) => response.writeHead(401).end());
  await assert.rejects(
    fetch(clientFor(t), refusing.origin, [0, 10], { events, anonymous: true }),
    failsWith('unauthorized', /./),
  );
  assert.deepEqual(events.authorizations, []);
  for (const { authorization } of [...server.asked, ...refusing.asked])
    assert.equal(authorization, undefined);
  assert.deepEqual([server.asked.length, refusing.asked.length], [1, 1]);
});

test('two tokens that others were given and that have expired too do not end the range', async (t) => {
  let serial = 0;
  const server = await serverFor(t, (request, response) => {
    if (request.headers.authorization !== 'Bearer 3') response.writeHead(401).end();
    else answerRange(request, response, BLOB);
  });
  const events = recordEvents({ authorize: () => `Bearer ${serial++}` });
  const { bytes } = await fetch(clientFor(t), server.origin, [0, 300], { events });
  assert.ok(bytes.equals(BLOB.subarray(0, 300)));
  assert.deepEqual(events.authorizations, [undefined, 'Bearer 0', 'Bearer 1', 'Bearer 2']);
});

test('a token may expire more than once in a range', async (t) => {
  let serial = 0;
  const server = await serverFor(t, (request, response, nth) => {
    if (nth % 2 === 1) response.writeHead(401).end();
    else breakAfter(response, beginRange(request, response, BLOB).subarray(0, 100));
  });
  const events = recordEvents({ authorize: () => `Bearer ${serial++}` });
  const { bytes } = await fetch(clientFor(t), server.origin, [0, 300], { events });
  assert.ok(bytes.equals(BLOB.subarray(0, 300)));
});

test('a blob that is not there is not found, with the words of the registry', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(404).end('{"errors":[{"code":"BLOB_UNKNOWN","message":"gone\\u001b[31m"}]}');
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    failsWith('blob-not-found', /has no blob sha256:abab.* in team\/app; it says "gone\\u001b\[31m"$/),
  );
});

test('a 416 that tells another size is a wrong manifest', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(416, { 'content-range': 'bytes */77' }).end();
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    (error) =>
      failsWith('metadata-malformed', /has 77 bytes/)(error) && (error as PullError).hint !== undefined,
  );
});

for (const status of [400, 416, 501]) {
  test(`a server that refuses ranges (${status}) is asked once without, and a later range never with one`, async (t) => {
    const server = await serverFor(t, (request, response) => {
      if (request.headers.range !== undefined) response.writeHead(status).end();
      else response.end(BLOB);
    });
    const lacking = createLacking();
    const whole = [0, BLOB.length] as const;
    const first = await fetch(clientFor(t, { lacking }), server.origin, whole, {
      wholeInstead: unwanted,
    });
    assert.ok(first.bytes.equals(BLOB));
    assert.deepEqual(first.events.misses, []);
    const second = await fetch(clientFor(t, { lacking }), server.origin, whole, {
      wholeInstead: unwanted,
    });
    assert.ok(second.bytes.equals(BLOB));
    assert.deepEqual(
      server.asked.map(({ range }) => range),
      [`bytes=0-${BLOB.length - 1}`, undefined, undefined],
    );
    const { bytes } = await fetch(clientFor(t, { lacking }), server.origin, [1000, 2000]);
    assert.ok(bytes.equals(BLOB.subarray(1000, 2000)));
    await assert.rejects(
      fetch(clientFor(t, { lacking }), server.origin, [0, 1000], { wholeInstead: unwanted }),
      failsWith('unsupported', /whole blobs only/),
    );
    assert.equal(server.asked.length, 4);
  });

  test(`a server that answers ${status} with and without a range has refused the blob`, async (t) => {
    const server = await serverFor(t, (_request, response) => response.writeHead(status).end());
    const misses: string[] = [];
    const events = recordEvents({
      miss: (message) => {
        misses.push(message);
        throw new PullError('network-hopeless', message);
      },
    });
    await assert.rejects(fetch(clientFor(t), server.origin, [0, 10], { events }), PullError);
    assert.equal(server.asked.length, 2);
    assert.equal(misses.length, status === 501 ? 1 : 0);
  });
}

test('the first 200 to a part of a blob is taken as the whole blob, over failures too, and only that one', async (t) => {
  const server = await serverFor(t, (_request, response, nth) => {
    response.writeHead(200, { 'content-length': BLOB.length });
    if (nth === 1) breakAfter(response, BLOB.subarray(0, 50_000));
    else response.end(BLOB);
  });
  const client = clientFor(t);
  const wholes: Buffer[][] = [];
  const wholeInstead = () => {
    const chunks: Buffer[] = [];
    wholes.push(chunks);
    return (chunk: Buffer) => void chunks.push(chunk);
  };
  const parts = [200_000, 0, 100_000].map((start) => {
    const take = () => assert.fail('a byte of the part came');
    return fetch(client, server.origin, [start, start + 1000], { wholeInstead, take });
  });
  for (const part of await Promise.allSettled(parts))
    assert.ok(part.status === 'rejected' && failsWith('unsupported', /whole blobs only/)(part.reason));
  assert.equal(wholes.length, 1);
  assert.ok(Buffer.concat(wholes[0]!).equals(BLOB));
  // All that begin at once wait for the first to learn where the blob is.
  assert.equal(server.asked.length, 2);
});

/** Answers the first request with its range, and the next two with the whole blob once both are there. */
function ignoringFromTheSecond(t: TestContext) {
  const waiting: Array<() => void> = [];
  return serverFor(t, (request, response, nth) => {
    if (nth === 1) return answerRange(request, response, BLOB);
    waiting.push(() => response.end(BLOB));
    if (nth === 3) for (const answer of waiting) answer();
  });
}

test('of several 200 to parts of a blob one is the whole blob, and none of the others is read', async (t) => {
  const server = await ignoringFromTheSecond(t);
  const client = clientFor(t);
  const wholeInstead = () => (chunk: Buffer) => void chunks.push(chunk);
  const chunks: Buffer[] = [];
  await fetch(client, server.origin, [0, 1000], { wholeInstead: unwanted });
  const events = recordEvents();
  const parts = [1000, 2000].map((start) =>
    assert.rejects(
      fetch(client, server.origin, [start, start + 1000], { wholeInstead, events }),
      failsWith('unsupported', /whole blobs only/),
    ),
  );
  await Promise.all(parts);
  assert.ok(Buffer.concat(chunks).equals(BLOB));
  assert.equal(events.receivedBytes, BLOB.length);
  await assert.rejects(
    fetch(client, server.origin, [3000, 4000], { wholeInstead: unwanted }),
    failsWith('unsupported', /whole blobs only/),
  );
  assert.equal(server.asked.length, 3);
});

test('a 200 to a part is closed at its head where another endpoint gives ranges, which is asked from then on', async (t) => {
  const server = await serverFor(t, (_request, response) => response.end(BLOB));
  const other = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const client = clientFor(t, { endpoints: [endpoint(true), endpoint(true)] });
  client.choice.note(1, 'gives-ranges');
  const events = { ...recordEvents(), originOf: async () => other.origin };
  for (const range of [
    [1000, 2000],
    [3000, 4000],
  ] as const) {
    const { bytes } = await fetch(client, server.origin, range, { wholeInstead: unwanted, events });
    assert.ok(bytes.equals(BLOB.subarray(...range)));
  }
  assert.deepEqual([server.asked.length, other.asked.length], [1, 2]);
});

test('a range that is refused while another finds that out is asked for without as well', async (t) => {
  const refused: Array<() => void> = [];
  const server = await serverFor(t, (request, response) => {
    if (request.headers.range === undefined) {
      response.end(BLOB);
      return;
    }
    refused.push(() => response.writeHead(416).end());
    if (refused.length === 2) refused[0]!();
  });
  const client = clientFor(t);
  client.choice.note(0, 'serves-itself');
  const whole = { wholeInstead: unwanted };
  const first = fetch(client, server.origin, [0, BLOB.length], whole);
  const second = fetch(client, server.origin, [0, BLOB.length], whole);
  await Promise.race([first, second]);
  refused[1]!();
  for (const { bytes } of await Promise.all([first, second])) assert.ok(bytes.equals(BLOB));
});

test('a server error is a miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth > 2) answerRange(request, response, BLOB);
    else response.writeHead(nth === 1 ? 500 : 503).end('oops');
  });
  const { events, totals } = await fetch(clientFor(t), server.origin, [0, 10]);
  assert.equal(events.misses.length, 2);
  assert.match(events.misses[0]!, /answers 500/);
  assert.equal(totals.receivedBytes, 10);
});

test('Retry-After is obeyed with the clock of karma stopped, and is no miss', async (t) => {
  const events = recordEvents();
  let pausesSeen: readonly number[] = [];
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(429, { 'retry-after': '1' }).end();
    else answerRange(request, response, BLOB);
    pausesSeen = [events.pauses, events.pausesOpen];
  });
  await fetch(clientFor(t), server.origin, [0, 10], { events });
  assert.deepEqual(pausesSeen, [1, 0]);
  assert.deepEqual(events.misses, []);
});

test('a token that expires during a wait is renewed before it is used again', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(429, { 'retry-after': '1' }).end();
    else answerRange(request, response, BLOB);
  });
  let renewed = 0;
  const events = recordEvents({ authorize: () => `Bearer ${++renewed}` });
  await fetch(clientFor(t), server.origin, [0, 10], { events });
  assert.deepEqual(
    server.asked.map(({ authorization }) => authorization),
    ['Bearer 1', 'Bearer 2'],
  );
});

test('a 429 that does not say how long is waited out, and is no miss', async (t) => {
  const events = recordEvents();
  const server = await serverFor(t, (request, response, nth) => {
    if (nth <= 2) response.writeHead(429).end();
    else answerRange(request, response, BLOB);
  });
  await fetch(clientFor(t), server.origin, [0, 10], { events });
  assert.deepEqual([events.pauses, events.pausesOpen, events.misses.length], [2, 0, 0]);
  assert.equal(server.asked.length, 3);
});

test('a Retry-After above two minutes ends the range', async (t) => {
  const server = await serverFor(t, (_request, response) =>
    response.writeHead(503, { 'retry-after': '121' }).end(),
  );
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    failsWith('network-hopeless', /wait too long/),
  );
});

test('a wait counts together with what other threads have waited', async (t) => {
  const waits = createWaitBudget();
  const longAgoMs = Date.now() - 1_000_000;
  for (let nth = 0; nth < 5; nth++) bookWait(waits, 120_000, longAgoMs + nth * 120_000, 'example.com');
  const events = recordEvents();
  const server = await serverFor(t, (_request, response) =>
    response.writeHead(429, { 'retry-after': '1' }).end(),
  );
  await assert.rejects(
    fetch(clientFor(t, { waits }), server.origin, [0, 10], { events }),
    failsWith('network-hopeless', /1 s after 600 s of waiting/),
  );
  assert.equal(events.pauses, 0);
});

/** A mirror and the registry, which answer as told, each with room for one request; and a range fetched there. */
async function atTwo(t: TestContext, mirror: Answering, registry: Answering) {
  const limits = createLimits(2, 1);
  const load = [0, 1].map((row) => new Concurrency(limits, row));
  const full: boolean[][] = [];
  const noted =
    (answer: Answering): Answering =>
    (...exchange) => {
      full.push(load.map(({ isFull }) => isFull));
      answer(...exchange);
    };
  const [first, second] = [await serverFor(t, noted(mirror)), await serverFor(t, noted(registry))];
  const endpoints = [endpoint(true), endpoint(true)];
  const client = clientFor(t, { endpoints, limits });
  const outcome = async (more: Parameters<typeof fetch>[3] = {}) => {
    const events = recordEvents({
      origins: ['', second.origin],
      miss: () => {
        throw new Error('hopeless');
      },
    });
    const ended = await fetch(client, first.origin, [0, 10], { events, ...more }).then(
      () => 'came',
      () => 'failed',
    );
    return [ended, ...load.map(({ isFull }) => isFull)];
  };
  return { outcome, full, client, mirror: first, registry: second };
}

const REFUSE: Answering = (_request, response) => response.writeHead(404).end();
const GIVE: Answering = (request, response) => answerRange(request, response, BLOB);
const BREAK: Answering = (_request, response) => response.socket?.destroy();

test('a range is in flight at the endpoint that is asked, and nowhere when it has ended, however it ended', async (t) => {
  const came = await atTwo(t, GIVE, GIVE);
  assert.deepEqual(await came.outcome(), ['came', false, false]);
  assert.deepEqual(came.full, [[true, false]]);
  const taken = await atTwo(t, BREAK, GIVE);
  assert.deepEqual(await taken.outcome(), ['came', false, false]);
  assert.deepEqual(taken.full.at(-1), [false, true]);
  const refused = await atTwo(t, REFUSE, REFUSE);
  assert.deepEqual(await refused.outcome(), ['failed', false, false]);
  const hopeless = await atTwo(t, BREAK, BREAK);
  assert.deepEqual(await hopeless.outcome(), ['failed', false, false]);
  const take = () => {
    throw new Error('no room');
  };
  assert.deepEqual(await came.outcome({ take }), ['failed', false, false]);
  const events = recordEvents({
    authorize: () => {
      throw new PullError('unauthorized', 'no token');
    },
    origins: ['', 'http://127.0.0.1'],
  });
  assert.deepEqual(await came.outcome({ events }), ['failed', false, false]);
});

test('an endpoint that asks to wait has its share halved, whether it is waited for or not', async (t) => {
  const limits = createLimits(2, 4);
  const wait: Answering = (request, response, nth) => {
    if (nth === 1) response.writeHead(429, { 'retry-after': '1' }).end();
    else answerRange(request, response, BLOB);
  };
  const mirror = await serverFor(t, wait);
  const registry = await serverFor(t, wait);
  const client = clientFor(t, { endpoints: [endpoint(true), endpoint(true)], limits });
  const events = recordEvents({ origins: ['', registry.origin] });
  await fetch(client, mirror.origin, [0, 10], { events });
  assert.equal(events.pauses, 1);
  assert.deepEqual(
    [0, 1].map((row) => new Concurrency(limits, row).limit),
    [2, 2],
  );
});

test('a mirror that asks to wait is waited for without a miss where the registry refuses', async (t) => {
  const waitAtFirst = (seconds: number): Answering => {
    return (request, response, nth) => {
      if (nth === 1) response.writeHead(429, { 'retry-after': String(seconds) }).end();
      else answerRange(request, response, BLOB);
    };
  };
  const came = await atTwo(t, waitAtFirst(1), REFUSE);
  assert.deepEqual(await came.outcome(), ['came', false, false]);
  const tooLong = await atTwo(t, waitAtFirst(300), waitAtFirst(300));
  const events = recordEvents({ origins: ['', tooLong.registry.origin] });
  await assert.rejects(
    fetch(tooLong.client, tooLong.mirror.origin, [0, 10], { events }),
    failsWith('network-hopeless', /wait too long: \d+ s after 0 s/),
  );
  assert.deepEqual([events.misses, events.pauses, events.requests], [[], 0, 2]);
});

test('what one range is told to wait, no range of any thread asks before', async (t) => {
  const limits = createLimits(1, 4);
  let calmFromMs: number | undefined;
  const server = await serverFor(t, (request, response) => {
    calmFromMs ??= performance.now() + 1900;
    if (performance.now() > calmFromMs) answerRange(request, response, BLOB);
    else response.writeHead(429, { 'retry-after': '2' }).end();
  });
  const told = recordEvents();
  const client = clientFor(t, { limits });
  const first = fetch(client, server.origin, [0, 10], { events: told });
  // They wait for what the first is told of the blob's place.
  const waiting = [20, 30].map((start) => fetch(client, server.origin, [start, start + 10]));
  while (told.pauses === 0) await sleep(5);
  const events = recordEvents();
  await fetch(clientFor(t, { limits }), server.origin, [10, 20], { events });
  await Promise.all([first, ...waiting]);
  assert.equal(server.asked.length, 5);
  assert.deepEqual([events.pauses, events.pausesOpen, events.requests], [1, 0, 1]);
});

test('of ranges that are all told to wait, no more than half come back at first', async (t) => {
  const connections = 4;
  let inFlight = 0;
  let most = 0;
  const server = await serverFor(t, (request, response, nth) => {
    if (nth <= connections) {
      response.writeHead(429, { 'retry-after': '1' }).end();
      return;
    }
    inFlight += 1;
    most = Math.max(most, inFlight);
    // As long as it takes for all to come back.
    setTimeout(() => {
      inFlight -= 1;
      answerRange(request, response, BLOB);
    }, 1100);
  });
  const client = clientFor(t, { limits: createLimits(1, connections) });
  client.choice.note(0, 'serves-itself');
  await Promise.all([0, 10, 20, 30].map((start) => fetch(client, server.origin, [start, start + 10])));
  assert.ok(most <= 2, `${most} at a time`);
});

test('a request that dies on a reused connection is repeated without a miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 2) request.socket.destroy();
    else answerRange(request, response, BLOB);
  });
  const client = clientFor(t, { connections: 1 });
  await fetch(client, server.origin, [0, 10]);
  const { bytes, events, totals } = await fetch(client, server.origin, [10, 20]);
  assert.ok(bytes.equals(BLOB.subarray(10, 20)));
  assert.deepEqual(events.misses, []);
  assert.equal(totals.requests, 2);
  assert.equal(server.connections(), 2);
});

test('a request that dies on a new connection is a miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth <= 2) request.socket.destroy();
    else answerRange(request, response, BLOB);
  });
  const { events } = await fetch(clientFor(t, { connections: 1 }), server.origin, [0, 10]);
  assert.equal(events.misses.length, 2);
});

for (const [what, spoil] of [
  [
    'whose body breaks off',
    (request, response) => breakAfter(response, beginRange(request, response, BLOB).subarray(0, 5)),
  ],
  ['that brings no answer in time', () => {}],
] as const satisfies readonly (readonly [string, Answering])[]) {
  test(`a request on a reused connection ${what} is a miss`, async (t) => {
    const server = await serverFor(t, (request, response, nth) => {
      if (nth === 2) spoil(request, response);
      else answerRange(request, response, BLOB);
    });
    const client = clientFor(t, { connections: 1, idleTimeoutMs: 300 });
    await fetch(client, server.origin, [0, 10]);
    const { bytes, events } = await fetch(client, server.origin, [10, 30]);
    assert.ok(bytes.equals(BLOB.subarray(10, 30)));
    assert.equal(events.misses.length, 1);
  });
}

test('a storage that is gone is a miss, and the registry names another', async (t) => {
  const storages = await Promise.all(
    [1, 2].map(() => serverFor(t, (request, response) => answerRange(request, response, BLOB))),
  );
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: storages[nth - 1]!.origin }).end();
  });
  const client = clientFor(t);
  await fetch(client, registry.origin, [0, 10]);
  await storages[0]!.close();
  const { bytes, events } = await fetch(client, registry.origin, [10, 30]);
  assert.ok(bytes.equals(BLOB.subarray(10, 30)));
  assert.equal(events.misses.length, 1);
});

test('only the first connection that dies is forgiven', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth >= 2 && nth <= 4) request.socket.destroy();
    else answerRange(request, response, BLOB);
  });
  const client = clientFor(t, { connections: 1 });
  await fetch(client, server.origin, [0, 10]);
  const { events } = await fetch(client, server.origin, [10, 20]);
  assert.equal(events.misses.length, 2);
  assert.equal(server.asked.length, 5);
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
  const { events } = await fetch(clientFor(t, { idleTimeoutMs: 300 }), server.origin, [0, 10]);
  assert.deepEqual(events.misses, []);
});

test('a limited rate holds the connection until it allows more, and hears of every byte', async (t) => {
  const server = await serverFor(t, (request, response) => answerRange(request, response, BLOB));
  const limited: number[] = [];
  const waiting: Array<() => void> = [];
  const events = {
    ...recordEvents(),
    limit(bytes: number): Promise<void> {
      limited.push(bytes);
      return new Promise((resolve) => waiting.push(resolve));
    },
  };
  let taken = 0;
  let ended = false;
  const fetching = fetch(clientFor(t, { idleTimeoutMs: 100 }), server.origin, [0, BLOB.length], {
    events,
    take: (chunk) => {
      taken += chunk.length;
    },
  }).finally(() => {
    ended = true;
  });
  while (!ended) {
    await sleep(1);
    // Never more than one chunk ahead of what was allowed.
    assert.ok(waiting.length <= 1);
    waiting.shift()?.();
  }
  const { bytes } = await fetching;
  assert.ok(bytes.equals(BLOB));
  assert.equal(taken, BLOB.length);
  assert.ok(limited.length > 1);
  assert.equal(
    limited.reduce((sum, each) => sum + each, 0),
    BLOB.length,
  );
});

test('after closing, ranges under way and waiting ones fail', async (t) => {
  const server = await serverFor(t, () => {
    void client.close();
  });
  const client = clientFor(t, { connections: 1 });
  const both = await Promise.allSettled([0, 10].map((at) => fetch(client, server.origin, [at, at + 10])));
  for (const result of both) {
    assert.ok(result.status === 'rejected');
    assert.match(String(result.reason), /client is closed/);
  }
});

test('more storage origins than are kept connected serve their ranges', async (t) => {
  const storages = await Promise.all(
    Array.from({ length: 20 }, () =>
      serverFor(t, (request, response) => answerRange(request, response, BLOB)),
    ),
  );
  const registry = await serverFor(t, (_request, response, nth) => {
    response.writeHead(307, { location: storages[nth - 1]!.origin }).end();
  });
  const client = clientFor(t);
  for (const at of storages.keys()) {
    const { bytes } = await fetch(client, registry.origin, [at, at + 9], { path: `/v2/a/blobs/${at}` });
    assert.ok(bytes.equals(BLOB.subarray(at, at + 9)));
  }
  assert.equal(storages.filter(({ asked }) => asked.length === 1).length, 20);
});

test('a refusal counts even when its body breaks off', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(404, { 'content-length': 100 });
    breakAfter(response, Buffer.from('half'));
  });
  await assert.rejects(
    fetch(clientFor(t), server.origin, [0, 10]),
    failsWith('blob-not-found', /has no blob/),
  );
});

test('connections are kept and there are no more of them than allowed', async (t) => {
  let open = 0;
  let most = 0;
  const server = await serverFor(t, (request, response) => {
    most = Math.max(most, ++open);
    setTimeout(() => {
      open--;
      answerRange(request, response, BLOB);
    }, 5);
  });
  const client = clientFor(t, { connections: 3 });
  const fetches = Array.from({ length: 20 }, (_, at) =>
    fetch(client, server.origin, [at * 1000, at * 1000 + 1000]),
  );
  for (const [at, { bytes }] of (await Promise.all(fetches)).entries()) {
    assert.ok(bytes.equals(BLOB.subarray(at * 1000, at * 1000 + 1000)));
  }
  assert.equal(most, 3);
  assert.equal(server.connections(), 3);
});

test('while a taker is busy nothing more is taken and what the peer can send is bounded', async (t) => {
  const large = patternBytes(32 * 1024 * 1024);
  let sentBytes = 0;
  const server = await serverFor(t, (request, response) => {
    const body = beginRange(request, response, large);
    let at = 0;
    const push = (): void => {
      while (at < body.length) {
        const chunk = body.subarray(at, at + 65536);
        at += chunk.length;
        sentBytes = at;
        if (!response.write(chunk)) {
          response.once('drain', push);
          return;
        }
      }
      response.end();
    };
    push();
  });
  let busy = false;
  let overlaps = 0;
  let first = true;
  let sentWhileHeld = 0;
  let takenBytes = 0;
  // The idle timeout is shorter than the hold: holding does not count as silence.
  const { events } = await fetch(clientFor(t, { idleTimeoutMs: 200 }), server.origin, [0, large.length], {
    sizeBytes: large.length,
    take: (chunk) => {
      if (busy) overlaps++;
      assert.ok(chunk.equals(large.subarray(takenBytes, takenBytes + chunk.length)));
      takenBytes += chunk.length;
      if (!first) return undefined;
      first = false;
      busy = true;
      return sleep(700).then(() => {
        sentWhileHeld = sentBytes;
        busy = false;
      });
    },
  });
  assert.equal(takenBytes, large.length);
  assert.equal(overlaps, 0);
  // Kernel buffers of both sides of a loopback connection hold some MiB.
  assert.ok(sentWhileHeld < 16 * 1024 * 1024, `${sentWhileHeld} bytes sent`);
  assert.deepEqual(events.misses, []);
});

test('a promise for every chunk brings every byte in order', async (t) => {
  const server = await serverFor(t, (request, response) => {
    const { start, end } = askedRange(request);
    response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/${BLOB.length}` });
    for (let at = start; at < end; at += 700) response.write(BLOB.subarray(at, Math.min(end, at + 700)));
    response.end();
  });
  let busy = false;
  const { bytes } = await fetch(clientFor(t), server.origin, [0, BLOB.length], {
    take: async () => {
      assert.equal(busy, false);
      busy = true;
      await null;
      busy = false;
    },
  });
  assert.ok(bytes.equals(BLOB));
});

for (const how of ['end', 'reset'] as const) {
  test(`a connection that is announced to close and breaks (${how}) while the taker is busy is a miss`, async (t) => {
    const server = await serverFor(t, (request, response, nth) => {
      if (nth > 1) {
        answerRange(request, response, BLOB);
        return;
      }
      response.setHeader('connection', 'close');
      const body = beginRange(request, response, BLOB);
      response.write(body.subarray(0, 5000), () => {
        setTimeout(
          () => (how === 'end' ? request.socket.destroySoon() : request.socket.resetAndDestroy()),
          50,
        );
      });
    });
    const { bytes, events } = await fetch(clientFor(t), server.origin, [0, 20_000], {
      take: () => sleep(150),
    });
    assert.ok(bytes.equals(BLOB.subarray(0, 20_000)));
    assert.equal(events.misses.length, 1);
    assert.deepEqual(
      server.asked.map(({ range }) => range),
      ['bytes=0-19999', 'bytes=5000-19999'],
    );
  });
}

for (const [how, take] of [
  [
    'throws',
    () => {
      throw new TypeError('bad frame');
    },
  ],
  ['rejects', () => Promise.reject(new TypeError('bad frame'))],
] as const satisfies readonly (readonly [string, Take])[]) {
  test(`what a taker ${how} with ends the range and closes the connection`, async (t) => {
    let closed = false;
    const server = await serverFor(t, (request, response) => {
      request.socket.on('close', () => {
        closed = true;
      });
      response.write(beginRange(request, response, BLOB).subarray(0, 100));
    });
    const events = recordEvents();
    await assert.rejects(fetch(clientFor(t), server.origin, [0, 1000], { take, events }), /bad frame/);
    while (!closed) await sleep(5);
    assert.deepEqual(events.misses, []);
    assert.equal(server.asked.length, 1);
  });
}
