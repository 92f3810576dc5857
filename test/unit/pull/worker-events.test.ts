import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCounters } from '../../../src/pool/counters.js';
import type { PullEvent } from '../../../src/pull/events.js';
import { Patience } from '../../../src/pull/patience.js';
import { Stop } from '../../../src/pull/stop.js';
import { WorkerEvents } from '../../../src/pull/worker-events.js';
import type { MirroredSession } from '../../../src/registry/mirrored-session.js';

test('of a pull that has failed only lines about its requests are still told', () => {
  const told: PullEvent[] = [];
  const stop = new Stop();
  const patience = new Patience({
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
    patience,
    emit: (event) => told.push(event),
    onFullStore: () => {},
  });
  events.close();
  events.handle({ event: 'miss', message: 'it broke' });
  events.handle({ event: 'request', line: 'GET the blob: 404' });
  assert.deepEqual(told, [{ event: 'debug', line: 'GET the blob: 404' }]);
  assert.deepEqual([patience.misses, stop.reason], [0, undefined]);
});
