import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Progress, RangeJob } from '../../../src/registry/range-client.js';
import { judge, type Place, type Verdict } from '../../../src/registry/verdict.js';

const BLOB_URL = 'https://reg.example/v2/a/blobs/b';
const REGISTRY: Place = { url: new URL(BLOB_URL), remembered: undefined };
const SIGNED = new URL('https://store.example/b?sig=secret');
const STORAGE: Place = { url: SIGNED, remembered: SIGNED };

interface Case {
  readonly place?: Place;
  readonly headers?: Record<string, string>;
  readonly renewals?: number;
  readonly anonymous?: true;
}

function verdictOn(
  status: number,
  { place = REGISTRY, headers = {}, renewals = 0, anonymous }: Case = {},
): Verdict {
  const job = { blob: { url: BLOB_URL, ...(anonymous && { anonymous }) } } as RangeJob;
  const progress = { url: BLOB_URL, waited: 0, renewals } as Progress;
  const body = Buffer.from('{"errors":[{"message":"token secret"}]}');
  const chance = { nowMs: 0, random: 0.5 };
  return judge(job, progress, { kind: 'answer', status, headers, body }, place, chance);
}

test('an answer says what follows and why, and the reason has no query and none of the server’s words', () => {
  const expired = 'the target of a redirect has expired';
  for (const [next, again, status, more] of [
    ['wait', 'reg.example asks to wait 2.0 s', 429, { headers: { 'retry-after': '2' } }],
    ['wait', 'reg.example asks to wait 0.5 s', 429, {}],
    ['wait', 'store.example asks to wait 7.0 s', 503, { place: STORAGE, headers: { 'retry-after': '7' } }],
    ['miss', 'reg.example answers 503', 503, {}],
    ['miss', 'store.example answers 500', 500, { place: STORAGE }],
    ['miss', 'reg.example answers 408', 408, {}],
    ['renew-target', expired, 400, { place: STORAGE }],
    ['renew-target', expired, 401, { place: STORAGE }],
    ['renew-target', expired, 403, { place: STORAGE }],
    ['renew-target', expired, 410, { place: STORAGE }],
    ['renew-token', 'reg.example wants a new token', 401, { renewals: 2 }],
    ['give-up', undefined, 401, { renewals: 3 }],
    ['give-up', undefined, 401, { anonymous: true }],
    ['give-up', undefined, 401, { place: { ...STORAGE, remembered: undefined } }],
    ['give-up', undefined, 403, {}],
    ['give-up', undefined, 404, { place: STORAGE }],
  ] as readonly (readonly [string, string | undefined, number, Case])[]) {
    const verdict = verdictOn(status, more);
    assert.deepEqual([verdict.next, verdict.again], [next, again], `${status} ${JSON.stringify(more)}`);
  }
});

test('a wait that is too long is not said to be followed by anything', () => {
  const { again, ...told } = verdictOn(429, { headers: { 'retry-after': '121' } });
  const reason = 'reg.example asks to wait 121.0 s';
  assert.deepEqual([again, told], [undefined, { next: 'wait', waitMs: 121_000, givenUp: reason }]);
});

test('who hears of a miss hears the server’s words', () => {
  const verdict = verdictOn(500);
  assert.equal(verdict.next === 'miss' && verdict.message, 'reg.example answers 500: "token secret"');
});
