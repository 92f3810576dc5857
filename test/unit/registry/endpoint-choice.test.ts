import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLimits } from '../../../src/registry/backoff.js';
import {
  createEndpointState,
  EndpointChoice,
  foreignHost,
  NO_ENDPOINT,
} from '../../../src/registry/endpoint-choice.js';

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

test('the first endpoint is asked, and those tried already are not', () => {
  const choice = choiceOf(2);
  assert.equal(choice.next(A, NONE, 0), 0);
  assert.equal(choice.next(A, new Set([0]), 0), 1);
  assert.equal(choice.next(A, new Set([0, 1]), 0), undefined);
});

test('an endpoint that failed is left alone for 10 s, then 20 s, and asked all the same when there is no other', () => {
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

test('an endpoint that asked for a longer wait is left alone for that long, also by what was under way', () => {
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

test('an endpoint that lacks a blob is not asked for it by any thread while another may have it', () => {
  const endpointState = createEndpointState();
  const choice = choiceOf(2, endpointState);
  const other = choiceOf(2, endpointState);
  other.lacks(0, A);
  assert.equal(choice.next(A, NONE, 0), 1);
  assert.equal(choice.next(B, NONE, 0), 0);
  assert.equal(choice.next(A, new Set([1]), 0), undefined, 'its lacking the blob would be the last word');
  assert.equal(choice.mayBeHad(A), true);
  other.lacks(1, A);
  assert.equal(choice.mayBeHad(A), false);
  assert.deepEqual([choice.next(A, NONE, 0), choice.next(A, new Set([0]), 0)], [0, 1]);
});

test('of more endpoints than are remembered, those behind keep nobody going on for ever', () => {
  const choice = choiceOf(33);
  for (let i = 0; i < 33; i++) choice.lacks(i, A);
  assert.equal(choice.mayBeHad(A), false);
});

test('what comes from no endpoint is nobody’s success or fault', () => {
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

test('an endpoint that asked to be asked less gets half as much of all threads, and then others are asked', () => {
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

test('an endpoint that asked to be left alone is left alone by all threads, one that failed by whoever saw it', () => {
  const limits = createLimits(2, 4);
  const [one, other] = [choiceOf(2, undefined, limits), choiceOf(2, undefined, limits)];
  one.failed(0, 1000);
  assert.equal(other.next(A, NONE, 2000), 0);
  one.failed(0, 2000, 60_000);
  assert.equal(other.next(A, NONE, 61_999), 1);
  assert.equal(other.next(A, new Set([1]), 61_999), 0);
  assert.equal(other.next(A, NONE, 62_000), 0);
});

test('an endpoint that failed is asked before one that asked to be left alone', () => {
  const choice = choiceOf(2);
  choice.failed(0, 1000, 60_000);
  choice.failed(1, 1000);
  assert.equal(choice.next(A, NONE, 2000), 1);
  assert.equal(choice.next(A, new Set([1]), 2000), 0);
});

test('ranges step aside for as long as one of them was told to wait, and while too many are in flight', () => {
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

test('an endpoint with enough in flight is asked before one that failed, and when it is the only one left', () => {
  const choice = choiceOf(2, undefined, createLimits(2, 1));
  choice.enter(0);
  assert.equal(choice.next(A, new Set([1]), 0), 0);
  assert.equal(choice.next(A, NONE, 0), 1);
  choice.failed(1, 0);
  assert.equal(choice.next(A, NONE, 0), 0);
});

test('good answers let an endpoint have more again, a failure that asks for nothing takes nothing from it', () => {
  const choice = choiceOf(2, undefined, createLimits(2, 2));
  choice.enter(0);
  choice.failed(0, 0);
  assert.equal(choice.next(A, NONE, 10_000), 0);
  choice.failed(0, 20_000, 0);
  assert.equal(choice.next(A, NONE, 100_000), 1);
  choice.succeeded(0);
  assert.equal(choice.next(A, NONE, 100_000), 0);
});

test('how an endpoint answers is noted for all threads, beside what it lacks', () => {
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

test('a part of a blob is asked of no endpoint that gives whole blobs only, where another gives ranges', () => {
  const choice = choiceOf(2);
  choice.note(0, 'ranges-ignored');
  assert.equal(choice.next(A, NONE, 0, true), 0);
  choice.note(1, 'gives-ranges');
  assert.deepEqual([choice.next(A, NONE, 0, true), choice.next(A, NONE, 0)], [1, 0]);
  choice.lacks(1, A);
  assert.equal(choice.next(A, NONE, 0, true), 0);
});
