/**
 * The next request of a range where that depends on concurrent ranges: no registry can bring that
 * about.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Digest } from '../../../src/format/digest.js';
import {
  bookWait,
  Concurrency,
  createLimits,
  createWaitBudget,
  sharedClockMs,
} from '../../../src/registry/backoff.js';
import { createEndpointState } from '../../../src/registry/endpoint-state.js';
import { createRangeClient } from '../../../src/registry/range-client.js';
import { RangeRoute } from '../../../src/registry/range-route.js';
import { recordEvents } from '../../support/scripted-server.js';

const DIGEST = `sha256:${'ab'.repeat(32)}` as Digest;
const MIRROR = `http://mirror/v2/x/blobs/${DIGEST}`;
const REGISTRY = `http://registry/v2/x/blobs/${DIGEST}`;
const STORAGE = new URL('http://storage/1');
const BLOB = { url: MIRROR, digest: DIGEST, sizeBytes: 10 };
const WAIT = { host: 'mirror', waitMs: 1000 };

/**
 * A mirror and its registry, with room for so many requests each, as the ranges of one thread ask
 * them.
 */
function twoEndpoints(t: TestContext, most: number) {
  // No wait is longer than requested.
  t.mock.method(Math, 'random', () => 0);
  const endpoint = { transport: { host: 'x', tlsVerify: true, environment: {} }, repository: 'x' };
  const limits = createLimits(2, most);
  const waits = createWaitBudget();
  const client = createRangeClient({
    connections: most,
    connectTimeoutMs: 1000,
    idleTimeoutMs: 1000,
    answerTimeoutMs: 1000,
    endpoints: [endpoint, endpoint],
    foreignTransport: { tlsVerify: true, environment: {} },
    endpointState: createEndpointState(),
    limits,
    waits,
  });
  t.after(() => client.close());
  const load = [new Concurrency(limits, 0), new Concurrency(limits, 1)];
  const begin = async (events = recordEvents({ origins: ['', 'http://registry'] })) => {
    const route = new RangeRoute(client, { blob: BLOB, start: 0, end: 10, onBytes: () => {}, events });
    await route.chooseEndpoint();
    return route;
  };
  return { begin, waits, mirror: load[0]!, full: () => load.map(({ isFull }) => isFull) };
}

/** Two ranges: one leads and asks the registry, the other waits for the target it finds. */
async function twoOfExpired(t: TestContext, most: number) {
  const endpoints = twoEndpoints(t, most);
  const [leader, waiting] = [await endpoints.begin(), await endpoints.begin()];
  const place = await leader.next();
  leader.redirected(place, STORAGE);
  leader.bodyBegins(await leader.next());
  const { cachedTarget: target } = await leader.next();
  assert.equal(target?.href, STORAGE.href);
  await leader.renewTarget(target);
  return { ...endpoints, leader, waiting, next: waiting.next() };
}

test('ranges that wait for a new target continue when the leading range switches to another endpoint', async (t) => {
  const { leader, waiting, next, mirror } = await twoOfExpired(t, 4);
  // Longer than any wait.
  mirror.throttled(300_000, sharedClockMs());
  const turn = async (route: RangeRoute, asking: Promise<unknown>) => {
    const error: unknown = await asking.catch((reason: unknown) => reason);
    assert.equal(await route.failOver(error), true);
  };
  await turn(leader, leader.next());
  assert.equal((await leader.next()).url.href, REGISTRY);
  await turn(waiting, next);
  leader.close();
  assert.equal((await waiting.next()).url.href, REGISTRY);
  waiting.close();
});

test('a leading range sends its request, although the limit is exceeded', async (t) => {
  const { leader, waiting, next, mirror } = await twoOfExpired(t, 2);
  // A while ago.
  mirror.throttled(0, sharedClockMs() - 4000);
  const place = await leader.next();
  assert.equal(place.url.href, MIRROR);
  leader.redirected(place, new URL('http://storage/2'));
  leader.bodyBegins(await leader.next());
  leader.close();
  assert.equal((await next).url.href, 'http://storage/2');
  waiting.close();
});

test('a range above the limit waits until another has ended', async (t) => {
  const { begin, mirror } = twoEndpoints(t, 2);
  const [one, other] = [await begin(), await begin()];
  one.note('serves-itself');
  mirror.throttled(0, sharedClockMs() - 4000);
  let asks = false;
  const next = other.next().then(() => {
    asks = true;
  });
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
  assert.equal(asks, false);
  one.close();
  await next;
});

test('a range is in flight at its endpoint, and nowhere when it has ended or cannot begin', async (t) => {
  const { begin, full } = twoEndpoints(t, 1);
  const route = await begin();
  assert.deepEqual(full(), [true, false]);
  await route.failed(await route.next(), 'broke off', { sign: 'alive' });
  assert.deepEqual(full(), [false, true]);
  route.close();
  assert.deepEqual(full(), [false, false]);
  const refuse = (): string => assert.fail('no token');
  await assert.rejects(begin(recordEvents({ authorize: refuse, origins: ['', 'http://registry'] })));
  assert.deepEqual(full(), [false, false]);
});

test('an endpoint that asks to wait has its limit halved, and a range uses the current Authorization afterwards', async (t) => {
  const { begin, mirror } = twoEndpoints(t, 4);
  let serial = 0;
  const events = recordEvents({ authorize: () => `Bearer ${++serial}`, origins: ['', 'http://registry'] });
  const route = await begin(events);
  const before = route.authorizationAt(await route.next());
  await route.wait({ ...WAIT, waitMs: 0 });
  assert.deepEqual(
    [mirror.limit, route.endpoint, events.pauses],
    [2, 1, 0],
    'the registry is asked meanwhile',
  );
  await route.wait({ ...WAIT, waitMs: 0 });
  assert.deepEqual([events.pauses, events.pausesOpen, events.misses.length], [1, 0, 0]);
  assert.notEqual(route.authorizationAt(await route.next()), before);
  assert.equal(serial, 3);
  route.close();
});

test('waits of all threads count together', async (t) => {
  const { begin, waits } = twoEndpoints(t, 4);
  const longAgoMs = Date.now() - 1_000_000;
  for (let nth = 0; nth < 5; nth++)
    bookWait(waits, { host: 'example.com', waitMs: 120_000 }, longAgoMs + nth * 120_000);
  const events = recordEvents({ origins: ['', 'http://registry'] });
  const route = await begin(events);
  await route.wait(WAIT);
  await assert.rejects(route.wait(WAIT), {
    code: 'network-hopeless',
    message: /1 s after 10 min of waiting/,
  });
  assert.equal(events.pauses, 0);
  route.close();
});
