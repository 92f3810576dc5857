import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MainMessage } from '../../../src/pool/messages.js';
import { createCounters } from '../../../src/pool/shared-memory.js';
import { Stop } from '../../../src/pull/pull-context.js';
import type { PullEvent } from '../../../src/pull/pull-events.js';
import { KarmaRetryPolicy } from '../../../src/pull/retry-policy.js';
import { TargetRenewals, WorkerEvents } from '../../../src/pull/workers.js';
import type { MirroredSession } from '../../../src/registry/mirrored-session.js';

test('after a pull has failed, only debug lines are still emitted', () => {
  const told: PullEvent[] = [];
  const stop = new Stop();
  const retries = new KarmaRetryPolicy({
    tauMs: 1000,
    counters: createCounters(),
    stop,
    now: () => 0,
    onWait: () => {},
    onMiss: () => {},
  });
  const events = new WorkerEvents({
    channel: 'worker-events-test',
    session: {} as MirroredSession,
    retries,
    emit: (event) => told.push(event),
    onFullStore: () => {},
  });
  events.close();
  events.handle({ event: 'miss', message: 'it broke' });
  events.handle({ event: 'request', line: 'GET the blob: 404' });
  assert.deepEqual(told, [{ event: 'debug', line: 'GET the blob: 404' }]);
  assert.deepEqual([retries.misses, stop.reason], [0, undefined]);
});

const BLOB = 'http://registry/blob';

function create() {
  const posted: MainMessage[] = [];
  const renewals = new TargetRenewals((message) => posted.push(message));
  const expired = (thread: number, target: string) => {
    renewals.expired({ blobUrl: BLOB, target, thread });
    return posted.splice(0);
  };
  const renewed = (target: string | undefined) => {
    renewals.renewed(BLOB, target);
    return posted.splice(0);
  };
  return { renewals, expired, renewed };
}

const leave = (thread: number) => ({ message: 'renew-target', blobUrl: BLOB, thread });
const told = (target: string | undefined, thread: number) => ({
  message: 'target',
  blobUrl: BLOB,
  target,
  thread,
});

test('the first thread gets permission to request, and its answer is sent once to each that waits', () => {
  const { expired, renewed } = create();
  assert.deepEqual(expired(1, 'a'), [leave(1)]);
  assert.deepEqual(expired(2, 'b'), []);
  assert.deepEqual(expired(3, 'a'), []);
  assert.deepEqual(renewed('c'), [told('c', 2), told('c', 3)]);
  assert.deepEqual(renewed('d'), []);
});

test('a thread gets an answer when the registry names the refused target again', () => {
  const { expired, renewed } = create();
  expired(1, 'a');
  expired(2, 'a');
  assert.deepEqual(renewed('a'), [told('a', 2)]);
});

test('a thread with an older target gets the latest; the next whose latest target expired requests one', () => {
  const { expired, renewed } = create();
  expired(1, 'a');
  renewed('c');
  assert.deepEqual(expired(2, 'b'), [told('c', 2)]);
  assert.deepEqual(expired(2, 'c'), [leave(2)]);
});

test('after a failed request those that wait get an answer, and the next gets permission', () => {
  const { expired, renewed } = create();
  expired(1, 'a');
  expired(3, 'a');
  assert.deepEqual(renewed(undefined), [told(undefined, 3)]);
  assert.deepEqual(expired(2, 'a'), [leave(2)]);
});

test('no thread is sent to a target that failed', () => {
  const { renewals, expired, renewed } = create();
  expired(1, 'a');
  renewed('c');
  renewals.failed(BLOB, 'other');
  assert.deepEqual(expired(2, 'b'), [told('c', 2)]);
  renewals.failed(BLOB, 'c');
  assert.deepEqual(expired(2, 'b'), [leave(2)]);
});

test('blobs are independent of each other', () => {
  const { renewals, expired, renewed } = create();
  renewals.expired({ blobUrl: 'http://registry/other', target: 'a', thread: 1 });
  assert.deepEqual(expired(2, 'a'), [{ ...leave(1), blobUrl: 'http://registry/other' }, leave(2)]);
  expired(3, 'a');
  renewals.renewed('http://registry/other', 'c');
  assert.deepEqual(renewed('d'), [told('d', 3)]);
});
