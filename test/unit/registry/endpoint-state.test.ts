import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turnOfLoop } from 'node:timers/promises';
import { createLimits } from '../../../src/registry/backoff.js';
import {
  createEndpointState,
  EndpointChoice,
  foreignHost,
  NO_ENDPOINT,
  RangeTurns,
} from '../../../src/registry/endpoint-state.js';

const A = `sha256:a12${'0'.repeat(61)}`;
const B = `sha256:b12${'0'.repeat(61)}`;
const NONE: ReadonlySet<number> = new Set();

function choiceOf(
  count: number,
  endpointState = createEndpointState(),
  limits = createLimits(count, 4),
): EndpointChoice {
  return new EndpointChoice(count, endpointState, limits);
}

test('the first endpoint is chosen, and those in `tried` are not', () => {
  const choice = choiceOf(2);
  assert.equal(choice.next(A, NONE, 0), 0);
  assert.equal(choice.next(A, new Set([0]), 0), 1);
  assert.equal(choice.next(A, new Set([0, 1]), 0), undefined);
});

test('a failed endpoint is avoided for 10 s, then 20 s, but chosen when there is no other', () => {
  const choice = choiceOf(2);
  choice.failed(0, 1000);
  choice.failed(0, 2000); // under way when the first failed
  assert.equal(choice.next(A, NONE, 10_999), 1);
  assert.equal(choice.next(A, new Set([1]), 10_999), 0);
  assert.equal(choice.next(A, NONE, 11_000), 0);
  choice.failed(0, 11_000);
  assert.equal(choice.next(A, NONE, 30_999), 1);
  assert.equal(choice.next(A, NONE, 31_000), 0);
  choice.succeeded(0);
  choice.failed(0, 40_000);
  assert.equal(choice.next(A, NONE, 50_000), 0);
});

test('an endpoint that asked for a longer wait is avoided for that long, by concurrent requests as well', () => {
  const choice = choiceOf(2);
  choice.failed(0, 1000, 100_000);
  choice.failed(0, 2000, 3000);
  assert.equal(choice.next(A, NONE, 100_999), 1);
  assert.equal(choice.next(A, NONE, 101_000), 0);
  const later = choiceOf(2);
  later.failed(0, 1000);
  later.failed(0, 2000, 60_000);
  assert.equal(later.next(A, NONE, 61_999), 1);
  assert.equal(later.next(A, NONE, 62_000), 0);
});

test('no thread chooses an endpoint that lacks a blob while another may have it', () => {
  const endpointState = createEndpointState();
  const choice = choiceOf(2, endpointState);
  const other = choiceOf(2, endpointState);
  other.lacks(0, A);
  assert.equal(choice.next(A, NONE, 0), 1);
  assert.equal(choice.next(B, NONE, 0), 0);
  assert.equal(choice.next(A, new Set([1]), 0), undefined, 'its lacking the blob would be the last word');
  assert.equal(choice.mayServe(A), true);
  other.lacks(1, A);
  assert.equal(choice.mayServe(A), false);
  assert.deepEqual([choice.next(A, NONE, 0), choice.next(A, new Set([0]), 0)], [0, 1]);
});

test('endpoints beyond the stored bits do not cause endless retries', () => {
  const choice = choiceOf(33);
  for (let i = 0; i < 33; i++) choice.lacks(i, A);
  assert.equal(choice.mayServe(A), false);
});

test('NO_ENDPOINT changes no state', () => {
  const endpointState = createEndpointState();
  const choice = choiceOf(32, endpointState);
  choice.lacks(NO_ENDPOINT, A);
  choice.failed(NO_ENDPOINT, 0);
  choice.succeeded(NO_ENDPOINT);
  choice.enter(NO_ENDPOINT);
  choice.leave(NO_ENDPOINT);
  assert.equal(choice.next(A, NONE, 0), 0);
  assert.ok(endpointState.every((slot) => slot === 0));
});

test('an endpoint that asked to wait gets half as many requests of all threads, and others the rest', () => {
  const limits = createLimits(2, 4);
  const [one, other] = [choiceOf(2, undefined, limits), choiceOf(2, undefined, limits)];
  one.failed(0, 1000, 1000);
  assert.equal(one.next(A, NONE, 20_000), 0, 'nothing is in flight there yet');
  one.enter(0);
  assert.equal(other.next(A, NONE, 20_000), 0);
  other.enter(0);
  for (const choice of [one, other]) assert.equal(choice.next(A, NONE, 20_000), 1);
  other.leave(0);
  for (const choice of [one, other]) assert.equal(choice.next(A, NONE, 20_000), 0);
});

test('all threads avoid an endpoint that asked to wait; only the thread that saw a failure avoids a failed one', () => {
  const limits = createLimits(2, 4);
  const [one, other] = [choiceOf(2, undefined, limits), choiceOf(2, undefined, limits)];
  one.failed(0, 1000);
  assert.equal(other.next(A, NONE, 2000), 0);
  one.failed(0, 2000, 60_000);
  assert.equal(other.next(A, NONE, 61_999), 1);
  assert.equal(other.next(A, new Set([1]), 61_999), 0);
  assert.equal(other.next(A, NONE, 62_000), 0);
});

test('a failed endpoint is chosen before one that asked to wait', () => {
  const choice = choiceOf(2);
  choice.failed(0, 1000, 60_000);
  choice.failed(1, 1000);
  assert.equal(choice.next(A, NONE, 2000), 1);
  assert.equal(choice.next(A, new Set([1]), 2000), 0);
});

test('ranges back off while one of them was asked to wait, and while too many are in flight', () => {
  const limits = createLimits(2, 2);
  const [one, other] = [choiceOf(2, undefined, limits), choiceOf(2, undefined, limits)];
  one.enter(0);
  other.enter(0);
  assert.equal(other.backOffMs(0, 1000), undefined);
  one.failed(0, 1000, 5000);
  assert.deepEqual([other.backOffMs(0, 1500), other.backOffMs(1, 1500)], [4500, undefined]);
  assert.equal(other.backOffMs(0, 6000), 0, 'there is room for one now');
  one.leave(0);
  assert.equal(other.backOffMs(0, 6000), undefined);
  assert.equal(other.backOffMs(NO_ENDPOINT, 6000), undefined);
});

test('a full endpoint is chosen before a failed one, and when it is the only one left', () => {
  const choice = choiceOf(2, undefined, createLimits(2, 1));
  choice.enter(0);
  assert.equal(choice.next(A, new Set([1]), 0), 0);
  assert.equal(choice.next(A, NONE, 0), 1);
  choice.failed(1, 0);
  assert.equal(choice.next(A, NONE, 0), 0);
});

test('successes raise the limit again, and a failure without a wait does not lower it', () => {
  const choice = choiceOf(2, undefined, createLimits(2, 2));
  choice.enter(0);
  choice.failed(0, 0);
  assert.equal(choice.next(A, NONE, 10_000), 0);
  choice.failed(0, 20_000, 0);
  assert.equal(choice.next(A, NONE, 100_000), 1);
  choice.succeeded(0);
  assert.equal(choice.next(A, NONE, 100_000), 0);
});

test('traits of an endpoint are shared by all threads, beside the blobs it lacks', () => {
  const endpointState = createEndpointState();
  const [one, other] = [choiceOf(33, endpointState), choiceOf(33, endpointState)];
  one.note(1, 'serves-itself');
  one.note(1, 'one-time-targets');
  one.note(1, 'serves-itself', false);
  assert.deepEqual(
    [0, 1].map((i) => [other.has(i, 'serves-itself'), other.has(i, 'one-time-targets')]),
    [
      [false, false],
      [false, true],
    ],
  );
  one.note(32, 'serves-itself');
  assert.equal(other.has(32, 'serves-itself'), false);
  const host = foreignHost('https://example.com/blob');
  one.note(host, 'ranges-ignored');
  assert.ok(other.has(foreignHost('https://example.com/other'), 'ranges-ignored'));
  assert.ok(![0, 31, foreignHost('https://example.org/blob')].some((i) => other.has(i, 'ranges-ignored')));
  assert.equal(other.next(`sha256:${'f'.repeat(64)}`, NONE, 0), 0);
});

test('an endpoint that ignores ranges is skipped for a part of a blob where another serves ranges', () => {
  const choice = choiceOf(2);
  choice.note(0, 'ranges-ignored');
  assert.equal(choice.next(A, NONE, 0, true), 0);
  choice.note(1, 'gives-ranges');
  assert.deepEqual([choice.next(A, NONE, 0, true), choice.next(A, NONE, 0)], [1, 0]);
  choice.lacks(1, A);
  assert.equal(choice.next(A, NONE, 0, true), 0);
});

/** Longer than any test. */
const LONG_MS = 600_000;

/** The turns of two threads. */
function twoThreads(responseMs: number, totalMs = LONG_MS): readonly [RangeTurns, RangeTurns] {
  const state = createEndpointState();
  const limits = { responseMs, totalMs };
  return [new RangeTurns(state, limits), new RangeTurns(state, limits)];
}

test('ranges of a blob take turns, on all threads, and those of another blob are not waited for', async () => {
  const [one, other] = twoThreads(LONG_MS);
  const ends: Array<() => void> = [];
  const waiting = [one, other, other].map(async (turns) => ends.push(await turns.acquire(A)));
  const endOfB = await one.acquire(B);
  for (let count = 1; count <= waiting.length; count++) {
    await Promise.race(waiting.slice(count - 1));
    await turnOfLoop();
    assert.equal(ends.length, count);
    ends[count - 1]!();
    ends[count - 1]!();
  }
  await Promise.all(waiting);
  endOfB();
  (await other.acquire(A))();
});

for (const [what, responseMs, totalMs] of [
  ['one response', 5, LONG_MS],
  ['all before it', LONG_MS, 5],
] as const) {
  test(`a range that waited too long for ${what} goes, and no range of that blob waits any more`, async (t) => {
    const [one, other] = twoThreads(responseMs, totalMs);
    // What waits for a turn does not keep a thread going.
    const going = setInterval(() => {}, 1000);
    t.after(() => clearInterval(going));
    const end = await one.acquire(A);
    await Promise.all([one.acquire(A), other.acquire(A)]);
    end();
    await Promise.all([one.acquire(A), other.acquire(A)]);
  });
}

test('one range of all threads claims a full blob, and all others see the claim', () => {
  const [one, other] = twoThreads(LONG_MS);
  assert.equal(other.isFullBlobComing(A), false);
  assert.deepEqual(
    [one.claimFullBlob(A), other.claimFullBlob(A), other.claimFullBlob(B)],
    [true, false, true],
  );
  assert.deepEqual([other.isFullBlobComing(A), one.isFullBlobComing(`${A.slice(0, -1)}1`)], [true, false]);
});
