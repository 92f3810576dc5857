import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Karma } from '../../../src/pull/retry-policy.js';
import { seeded } from '../../support/prng.js';

const TAU_MS = 1000;

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

test('10 bytes a second with a failure every 10 s are gone on with for a day', () => {
  const karma = new Karma(TAU_MS, 0);
  for (let second = 1; second <= 86_400; second++) {
    karma.received(10, second * 1000);
    if (second % 10 === 0) assert.equal(karma.miss(second * 1000), false, `second ${second}`);
  }
});

test('a server that dies after 1 MB and for good is given up when a millionth is left of it', () => {
  const karma = new Karma(TAU_MS, 0);
  karma.received(1e6, 0);
  // ln(1e6) time constants are 13.8 s; the misses before, one a second, add up to 1.6.
  const misses = Array.from({ length: 20 }, (_, i) => (i + 1) * 1000);
  assert.equal(
    misses.find((now) => karma.miss(now)),
    14_000,
  );
});

test('the clock stands still while nobody is asking', () => {
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
