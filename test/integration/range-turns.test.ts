import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../src/format/error.js';
import { createLimits, createWaitBudget } from '../../src/registry/backoff.js';
import { createEndpointState } from '../../src/registry/endpoint-state.js';
import { fetchRange } from '../../src/registry/range.js';
import {
  type BlobSource,
  createRangeClient,
  type RangeClient,
  type RangeEvents,
  type RangeJob,
} from '../../src/registry/range-client.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { addBlob, emptyLayout, nameImage, noise } from '../support/layout.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { answerRange, recordEvents, startServer } from '../support/scripted-server.js';
import { digestOf } from '../unit/store/support.js';

const CONNECTIONS = 8;
const BLOB = noise(1, 4 * 2 ** 20);
const DIGEST = digestOf(BLOB);
const RANGE_BYTES = BLOB.length / CONNECTIONS;

/** Longer than any test: a machine that is busy looks like a registry that is far away. */
const LONG_MS = 600_000;

function clientFor(t: TestContext, host: string, connections = CONNECTIONS) {
  const client = createRangeClient({
    connections,
    connectTimeoutMs: LONG_MS,
    idleTimeoutMs: LONG_MS,
    answerTimeoutMs: LONG_MS,
    endpoints: [{ transport: { host, tlsVerify: true, environment: {} }, repository: 'x' }],
    foreignTransport: { tlsVerify: true, environment: {} },
    endpointState: createEndpointState(),
    limits: createLimits(1, CONNECTIONS),
    waits: createWaitBudget(),
    turnLimits: { responseMs: LONG_MS, totalMs: LONG_MS },
  });
  t.after(() => client.close());
  return client;
}

/** Asks for all ranges of a blob at once. */
function allRanges(
  client: RangeClient,
  blob: BlobSource,
  events: RangeEvents,
  fullBlobInstead = (): RangeJob['onBytes'] => assert.fail('the whole blob came'),
): Promise<unknown>[] {
  return Array.from({ length: CONNECTIONS }, (_, i) => {
    const range = { start: i * RANGE_BYTES, end: (i + 1) * RANGE_BYTES };
    return fetchRange(client, { blob, ...range, fullBlobInstead, onBytes: () => {}, events });
  });
}

/** Asks a registry with these faults for all ranges of a blob at once. Returns how each ended, and the whole blob if that came. */
async function fetchAll(t: TestContext, faults: readonly FaultRule[]) {
  const layout = emptyLayout(t);
  addBlob(layout, BLOB);
  nameImage(layout, 'x', [], []);
  const registry = await startSandbox(t, { layout, faults });
  const whole: Buffer[] = [];
  const fullBlobInstead = () => (chunk: Buffer) => void whole.push(chunk);
  const blob = {
    url: `http://${registry.host}/v2/x/blobs/${DIGEST}`,
    digest: DIGEST,
    sizeBytes: BLOB.length,
  };
  const events = recordEvents();
  const ends = await Promise.allSettled(
    allRanges(clientFor(t, registry.host), blob, events, fullBlobInstead),
  );
  return { registry, ends, whole: Buffer.concat(whole), events };
}

/** From the n-th request on, ranges are ignored. */
function ignoredFrom(nth: number): FaultRule {
  return { match: { range: 'any', nth: [nth, 1e9] }, action: { ignoreRange: true } };
}

for (const nth of [1, 2, 3, CONNECTIONS]) {
  test(`a registry that ignores ranges from request ${nth} on sends the blob once besides what came before`, async (t) => {
    const { registry, ends, whole, events } = await fetchAll(t, [ignoredFrom(nth)]);
    const statuses = registry.requests.map(({ status }) => status);
    assert.deepEqual(statuses, [...new Array<number>(nth - 1).fill(206), 200]);
    const sentBytes = registry.requests.reduce((sum, request) => sum + request.sentBytes, 0);
    assert.equal(sentBytes, BLOB.length + (nth - 1) * RANGE_BYTES);
    assert.ok(whole.equals(BLOB));
    assert.ok(ends.filter(({ status }) => status === 'rejected').length > CONNECTIONS - nth);
    assert.deepEqual(events.misses, []);
  });
}

test('a range that is still arriving when another has become the full blob is closed', async (t) => {
  const slow = { match: { range: 'any', nth: 1 }, action: { drip: { bytesPerSecond: 100_000 } } };
  const { registry, ends, whole } = await fetchAll(t, [slow, ignoredFrom(2)]);
  assert.ok(registry.requests[0]!.sentBytes < RANGE_BYTES);
  const failure = await failureOf(Promise.reject((ends[0] as PromiseRejectedResult).reason));
  assert.equal(failure.code, 'unsupported');
  assert.ok(whole.equals(BLOB));
});

for (const status of [400, 416, 501]) {
  test(`one ${status} among good ranges is a failure, and after two in a row the full blob is requested`, async (t) => {
    const refuse = (nth: readonly [number, number]): FaultRule => ({
      match: { range: 'any', nth },
      action: { status },
    });
    const once = await fetchAll(t, [refuse([3, 3])]);
    assert.deepEqual(
      once.ends.map((end) => end.status),
      once.ends.map(() => 'fulfilled'),
    );
    assert.equal(once.events.misses.length, 1);
    assert.equal(once.registry.requests.length, CONNECTIONS + 1);
    const turned = await fetchAll(t, [refuse([3, 1e9])]);
    const failures = turned.ends.filter(({ status }) => status === 'rejected');
    assert.ok(failures.length >= CONNECTIONS - 2);
    for (const end of failures) {
      const failure = await failureOf(Promise.reject((end as PromiseRejectedResult).reason));
      assert.equal(failure.code, 'unsupported');
    }
    assert.equal(turned.events.misses.length, 1);
  });
}

test('of ranges that begin at once with an expired token, one is refused', async (t) => {
  const server = await startServer((request, response) => {
    if (request.headers.authorization === 'new') answerRange(request, response, BLOB);
    else response.writeHead(401).end();
  });
  t.after(() => server.close());
  let token = 'old';
  const events = recordEvents({
    authorize: (stale) => {
      if (stale === token) token = 'new';
      return token;
    },
  });
  const blob = { url: `${server.origin}/v2/x/blobs/${DIGEST}`, digest: DIGEST, sizeBytes: BLOB.length };
  await Promise.all(allRanges(clientFor(t, server.host), blob, events));
  assert.deepEqual(
    server.requests.map(({ authorization }) => authorization),
    ['old', ...new Array<string>(CONNECTIONS).fill('new')],
  );
});

test('a range that gets no token in its turn releases its connection', async (t) => {
  const server = await startServer((request, response) => answerRange(request, response, BLOB));
  t.after(() => server.close());
  const client = clientFor(t, server.host, 1);
  const blob = { url: `${server.origin}/v2/x/blobs/${DIGEST}`, digest: DIGEST, sizeBytes: BLOB.length };
  const range = { blob, start: 0, end: RANGE_BYTES, fullBlobInstead: () => undefined, onBytes: () => {} };
  let asked = 0;
  const authorize = () => {
    asked += 1;
    if (asked === 2) throw new PullError('unauthorized', 'no token');
    return 'token';
  };
  const refused = await failureOf(fetchRange(client, { ...range, events: recordEvents({ authorize }) }));
  assert.equal(refused.code, 'unauthorized');
  assert.deepEqual(server.requests, []);
  const { requests } = await fetchRange(client, { ...range, events: recordEvents() });
  assert.equal(requests, 1);
});
