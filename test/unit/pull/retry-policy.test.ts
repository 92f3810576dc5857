import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { count, createCounters } from '../../../src/pool/shared-memory.js';
import { Stop } from '../../../src/pull/pull-context.js';
import { Karma, KarmaRetryPolicy } from '../../../src/pull/retry-policy.js';
import type { Wait } from '../../../src/registry/backoff.js';
import { seeded } from '../../support/random.js';

const TAU_MS = 1000;

function create() {
  const clock = { now: 0 };
  const counters = createCounters();
  const stop = new Stop();
  const waits: Wait[] = [];
  const onWait = (wait: Wait) => waits.push(wait);
  const told: string[] = [];
  const onMiss = (message: string) => told.push(message);
  const retries = new KarmaRetryPolicy({
    tauMs: TAU_MS,
    counters,
    stop,
    now: () => clock.now,
    onWait,
    onMiss,
  });
  return { clock, counters, stop, retries, waits, told };
}

/** Why the pull was stopped, if it was. */
function failureOf({ reason }: Stop): PullError | undefined {
  assert.ok(reason === undefined || reason instanceof PullError);
  return reason;
}

function messageOf({ reason }: Stop): string | undefined {
  return reason?.message;
}

test('a miss before the first byte stops the pull with that miss as the reason', () => {
  const { retries, stop } = create();
  retries.countRequests(1);
  retries.missed({ message: 'connection refused by example.com' });
  assert.equal(failureOf(stop)?.code, 'network-hopeless');
  assert.equal(messageOf(stop), 'connection refused by example.com');
  assert.ok(failureOf(stop)?.hint !== undefined);
  assert.equal(retries.misses, 1);
});

test('the hint of the last failure is that of the error', async () => {
  const { retries, stop } = create();
  const failure = { message: 'cannot find example.com', hint: 'check the name' };
  await assert.rejects(retries.miss(failure), failure);
  assert.equal(failureOf(stop)?.hint, failure.hint);
});

test('a failure of the main thread is reported where a retry follows', async () => {
  const { retries, stop, told } = create();
  retries.received(1);
  const waiting = retries.miss({ message: 'one' });
  assert.deepEqual(told, ['one']);
  stop.now(new PullError('interrupted', 'enough'));
  await assert.rejects(waiting, { code: 'interrupted' });
  const end = create();
  await assert.rejects(end.retries.miss({ message: 'the only one' }));
  assert.deepEqual(end.told, []);
});

test('bytes that workers counted are added before a miss counts', () => {
  const { retries, counters, stop } = create();
  retries.countRequests(1);
  count(counters, 'received', 1);
  retries.missed({ message: 'one' });
  assert.equal(messageOf(stop), undefined);
  retries.missed({ message: 'two' });
  assert.equal(messageOf(stop), 'two');
  assert.equal(retries.misses, 2);
});

test('bytes that the main thread received count like those of workers', () => {
  const { retries, stop } = create();
  retries.countRequests(1);
  retries.received(2);
  retries.missed({ message: 'one' });
  retries.missed({ message: 'two' });
  assert.equal(messageOf(stop), undefined);
});

test('bytes decay from the time they are drained, not from the time of a miss', () => {
  const { retries, counters, clock, stop } = create();
  retries.countRequests(1);
  count(counters, 'received', 20_000);
  retries.drain();
  clock.now += 5 * TAU_MS;
  retries.missed({ message: '134 of them are left' });
  assert.equal(messageOf(stop), undefined);
  clock.now += 5 * TAU_MS;
  retries.missed({ message: 'none of them is left' });
  assert.equal(messageOf(stop), 'none of them is left');
});

test('karma decays while requests are in flight, and keeps its value while none are', () => {
  const { retries, clock, stop } = create();
  retries.countRequests(1);
  retries.received(10);
  retries.countRequests(-1);
  clock.now += 100 * TAU_MS;
  retries.countRequests(1);
  retries.missed({ message: 'after a long rest' });
  assert.equal(messageOf(stop), undefined);
  clock.now += 100 * TAU_MS;
  retries.missed({ message: 'after a long silence' });
  assert.equal(messageOf(stop), 'after a long silence');
});

test('one waiting request of two does not stop the clock, two do', () => {
  const { retries, clock, stop, waits } = create();
  retries.countRequests(1);
  retries.countRequests(1);
  retries.received(10);
  const [one, two] = [1000, 2000].map((waitMs) => ({ host: 'example.com', waitMs }));
  const goOn = retries.pause(one!);
  const goOnToo = retries.pause(two!);
  assert.deepEqual(waits, [one, two]);
  clock.now += 100 * TAU_MS;
  goOn();
  retries.missed({ message: 'both had been told to wait' });
  assert.equal(messageOf(stop), undefined);
  clock.now += 100 * TAU_MS;
  retries.missed({ message: 'one was asking all the time' });
  assert.equal(messageOf(stop), 'one was asking all the time');
  goOnToo();
});

test('after a miss of the main thread that is not fatal, the retry waits', async () => {
  const { retries } = create();
  retries.countRequests(1);
  retries.received(100);
  let over = false;
  const waiting = retries.miss({ message: 'reset' }).then(() => {
    over = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(over, false);
  await waiting;
});

test('a miss of the main thread that is fatal rejects at once with the reason', async () => {
  const { retries, stop } = create();
  retries.countRequests(1);
  await assert.rejects(retries.miss({ message: 'refused' }), {
    code: 'network-hopeless',
    message: 'refused',
  });
  assert.equal(messageOf(stop), 'refused');
});

const RESET = { message: 'reset', host: 'registry', sign: 'alive' } as const;
const TIMEOUT = { message: 'silent', host: 'registry', sign: 'silent' } as const;

test('before the first bytes, two failed tries against a live host do not end the pull, however many requests share them', () => {
  const { retries, stop, clock } = create();
  retries.countRequests(1);
  retries.received(1);
  for (clock.now of [0, 1, 400, 1000, 1300]) retries.missed(RESET);
  assert.equal(stop.reason, undefined);
  clock.now = 2000;
  retries.missed(RESET);
  assert.equal(messageOf(stop), 'reset');
  assert.equal(retries.misses, 6);
});

test('a host that is not alive, and one that has sent bytes, get no such tries', () => {
  const refused = create();
  refused.retries.missed({ message: 'refused', host: 'registry' });
  assert.equal(messageOf(refused.stop), 'refused');
  const faded = create();
  faded.retries.countRequests(1);
  faded.retries.received(64);
  faded.clock.now = 20 * TAU_MS;
  faded.retries.missed(RESET);
  assert.equal(messageOf(faded.stop), 'reset');
});

test('timeouts of one host within a second are one failure, those of another host or a later second are not', () => {
  const { retries, stop, clock } = create();
  retries.received(2);
  for (let i = 0; i < 16; i++) retries.missed(TIMEOUT);
  assert.equal(retries.misses, 1);
  assert.equal(stop.reason, undefined);
  assert.equal(retries.missed({ ...TIMEOUT, host: 'storage' }), true);
  clock.now = 999;
  assert.equal(retries.missed(TIMEOUT), false);
  clock.now = 1000;
  assert.equal(retries.missed(TIMEOUT), true);
  assert.equal(retries.misses, 3);
});

test('a miss before the first byte is fatal', () => {
  assert.equal(new Karma(TAU_MS, 0).miss(0), true);
});

test('one byte pays for one miss at the same moment, not for two', () => {
  const karma = new Karma(TAU_MS, 0);
  karma.received(1, 5);
  assert.equal(karma.miss(5), false);
  assert.equal(karma.miss(5), true);
});

test('what was earned fades by the factor e each tau', () => {
  const bytes = 1000;
  const lasts = TAU_MS * Math.log(bytes);
  const patient = new Karma(TAU_MS, 0);
  patient.received(bytes, 0);
  assert.equal(patient.miss(lasts - 1), false);
  const late = new Karma(TAU_MS, 0);
  late.received(bytes, 0);
  assert.equal(late.miss(lasts + 1), true);
});

test('steady progress, however slow, survives a miss each second', () => {
  const karma = new Karma(TAU_MS, 0);
  for (let second = 1; second <= 60; second++) {
    karma.received(3, second * 1000);
    assert.equal(karma.miss(second * 1000), false, `second ${second}`);
  }
});

test('at 10 bytes a second, a pull with a failure every 10 s continues for a day', () => {
  const karma = new Karma(TAU_MS, 0);
  for (let second = 1; second <= 86_400; second++) {
    karma.received(10, second * 1000);
    if (second % 10 === 0) assert.equal(karma.miss(second * 1000), false, `second ${second}`);
  }
});

test('after a server sent 1 MB and died, the pull ends when a millionth of that karma is left', () => {
  const karma = new Karma(TAU_MS, 0);
  karma.received(1e6, 0);
  // ln(1e6) time constants are 13.8 s; the misses before, one a second, add up to 1.6.
  const misses = Array.from({ length: 20 }, (_, i) => (i + 1) * 1000);
  assert.equal(
    misses.find((now) => karma.miss(now)),
    14_000,
  );
});

test('the clock is paused while no request is in flight', () => {
  const karma = new Karma(TAU_MS, 0);
  karma.received(2, 0);
  karma.pause(0);
  karma.resume(100_000);
  assert.equal(karma.miss(100_000), false);
  assert.equal(karma.miss(100_000 + TAU_MS), true);
});

test('random histories agree with a plain model that recomputes everything from the start', () => {
  const seed = Number(process.env['SEED'] ?? 20261121);
  const random = seeded(seed);
  for (let round = 0; round < 300; round++) {
    const tau = 1 + Math.floor(random() * 3000);
    const karma = new Karma(tau, 0);
    const history: Array<{ at: number; amount: number }> = [];
    let now = 0;
    for (let step = 0; step < 40; step++) {
      now += Math.floor(random() * 2500);
      if (random() < 0.5) {
        const bytes = Math.floor(random() * 2000);
        karma.received(bytes, now);
        history.push({ at: now, amount: bytes });
        continue;
      }
      history.push({ at: now, amount: -1 });
      const model = history.reduce((sum, { at, amount }) => sum + amount * Math.exp(-(now - at) / tau), 0);
      if (Math.abs(model) < 1e-9) break; // too close to call for floating point
      const gaveUp = karma.miss(now);
      assert.equal(gaveUp, model < 0, `seed ${seed}, round ${round}, step ${step}, model ${model}`);
      if (gaveUp) break;
    }
  }
});

test('silence is reported with the time at which it ends the pull, while a request is in flight', () => {
  const { clock, counters, retries, stop } = create();
  const silence = () => retries.silence(10_000, 65_000);
  assert.equal(silence(), undefined);
  retries.countRequests(1);
  clock.now = 900;
  assert.equal(silence(), undefined);
  clock.now = 2000;
  // Without any bytes the first failure is the last one.
  assert.deepEqual(silence(), { silentMs: 2000, givesUpMs: 10_000 });
  count(counters, 'received', 1_000_000);
  retries.drain();
  assert.equal(silence(), undefined);
  clock.now = 12_000;
  // A million bytes last 13.8 s: the first timeout is survived, the second is not.
  assert.deepEqual(silence(), { silentMs: 10_000, givesUpMs: 76_000 });
  retries.missed({ message: 'silent', host: 'h', sign: 'silent' });
  clock.now = 15_000;
  assert.deepEqual(silence(), { silentMs: 13_000, givesUpMs: 76_000 });
  count(counters, 'received', 1_000_000);
  retries.drain();
  for (clock.now = 16_000; clock.now < 19_000; clock.now += 1000) retries.missed({ message: 'refused' });
  // Failures each second end the pull soon after those bytes have decayed.
  assert.deepEqual(silence(), { silentMs: 4000, givesUpMs: 14_000 });
  retries.countRequests(-1);
  clock.now = 30_000;
  assert.equal(silence(), undefined);
  assert.equal(stop.reason, undefined);
});
