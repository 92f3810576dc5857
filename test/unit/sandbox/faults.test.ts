import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import {
  createFaults,
  type FaultMatch,
  type FaultRequest,
  parseFaults,
} from '../../../src/sandbox/faults.js';

const BLOB: FaultRequest = { method: 'GET', path: '/v2/a/blobs/sha256:3f', range: 'bytes=0-9' };
const always = (): boolean => true;

/** Which of some requests a match selects. */
function selected(match: FaultMatch, requests: readonly FaultRequest[]): boolean[] {
  const next = createFaults([{ match, action: { status: 500 } }]);
  return requests.map((request) => next(request, always) !== undefined);
}

test('an empty match selects every request', () => {
  assert.deepEqual(selected({}, [BLOB, { ...BLOB, range: undefined, method: 'HEAD' }]), [true, true]);
});

test('a path is a part of the path, or a regular expression between slashes', () => {
  const manifest = { ...BLOB, path: '/v2/a/manifests/x' };
  assert.deepEqual(selected({ path: 'blobs/' }, [BLOB, manifest]), [true, false]);
  assert.deepEqual(selected({ path: 'blobs.*3f' }, [BLOB, manifest]), [false, false]);
  assert.deepEqual(selected({ path: '/blobs.*3f$/' }, [BLOB, manifest]), [true, false]);
  assert.deepEqual(selected({ path: '/manifests/' }, [BLOB, manifest]), [false, true]);
});

test('a method selects only itself', () => {
  assert.deepEqual(selected({ method: 'HEAD' }, [BLOB, { ...BLOB, method: 'HEAD' }]), [false, true]);
});

test('a range is exact, any or none', () => {
  const requests = [BLOB, { ...BLOB, range: 'bytes=0-99' }, { ...BLOB, range: undefined }];
  assert.deepEqual(selected({ range: '0-9' }, requests), [true, false, false]);
  assert.deepEqual(selected({ range: 'any' }, requests), [true, true, false]);
  assert.deepEqual(selected({ range: 'none' }, requests), [false, false, true]);
});

test('nth counts the matching requests from 1', () => {
  const other = { ...BLOB, path: '/v2/' };
  const requests = [BLOB, other, BLOB, BLOB, BLOB];
  assert.deepEqual(selected({ path: 'blobs', nth: 2 }, requests), [false, false, true, false, false]);
  assert.deepEqual(selected({ path: 'blobs', nth: [2, 3] }, requests), [false, false, true, true, false]);
});

test('the first matching rule wins, and the others keep counting', () => {
  const next = createFaults([
    { match: { nth: 1 }, action: { status: 500 } },
    { match: { nth: 2 }, action: { status: 501 } },
    { match: {}, action: { status: 502 } },
  ]);
  assert.deepEqual(
    [1, 2, 3].map(() => next(BLOB, always)),
    [{ status: 500 }, { status: 501 }, { status: 502 }],
  );
});

test('a rule whose action does not apply is passed over and does not count', () => {
  const next = createFaults([
    { match: { nth: 1 }, action: { challenge: {} } },
    { match: {}, action: { status: 500 } },
  ]);
  assert.deepEqual(
    next(BLOB, (action) => !('challenge' in action)),
    { status: 500 },
  );
  assert.deepEqual(next(BLOB, always), { challenge: {} });
});

test('every kind of rule is read from JSON', () => {
  const actions = [
    { status: 404, headers: { 'X-A': 'b' }, body: 'gone' },
    { status: 500 },
    { closeAfterBytes: 0 },
    { drip: { bytesPerSecond: 10 } },
    { drip: { bytesPerSecond: 10, closeAfterBytes: 100 } },
    { stallAfterBytes: 10 },
    { firstByteAfterMs: 10 },
    { withHeaders: { 'Content-Encoding': 'gzip' } },
    { flipByteAt: 5 },
    { ignoreRange: true },
    { shortRange: 100 },
    { wrongContentRange: 'bytes 5-9/100' },
    { redirect: {} },
    { redirect: { expiresAfterMs: 100, expiresAfterRequests: 20 } },
    { challenge: { always: true, expiresAfterMs: 0 } },
    { retryAfter: { status: 429, seconds: 1 } },
  ];
  const match = { path: 'blobs', method: 'GET', range: '0-9', nth: [1, 2] };
  const text = `[${actions.map((action) => `{"match":${JSON.stringify(match)},"then":${JSON.stringify(action)}}`)}]`;
  assert.deepEqual(
    parseFaults(JSON.parse(text)),
    actions.map((action) => ({ match, action })),
  );
});

test('a trickle is a drip without closeAfterBytes', () => {
  assert.deepEqual(parseFaults(JSON.parse('[{"then":{"trickle":20000}}]')), [
    { match: {}, action: { drip: { bytesPerSecond: 20_000 } } },
  ]);
});

test('a rule without a match matches everything', () => {
  assert.deepEqual(parseFaults(JSON.parse('[{"then":{"status":500}}]')), [
    { match: {}, action: { status: 500 } },
  ]);
});

const MALFORMED: readonly (readonly [string, RegExp])[] = [
  ['{}', /^the fault rules must be a JSON list$/],
  ['[1]', /^fault rule 1 must be a JSON object$/],
  ['[{"then":{"status":500}},{"then":{"status":99}}]', /^fault rule 2: then\.status .* from 200 to 599$/],
  ['[{"when":{},"then":{"status":500}}]', /^fault rule 1 has an unknown field "when"$/],
  ['[{"match":{"paht":"x"},"then":{"status":500}}]', /^fault rule 1: match has an unknown field "paht"$/],
  ['[{"match":{"path":""},"then":{"status":500}}]', /^fault rule 1: match\.path must be/],
  ['[{"match":{"path":"/(/"},"then":{"status":500}}]', /^fault rule 1: match\.path is not a regular expr/],
  ['[{"match":{"method":"get"},"then":{"status":500}}]', /^fault rule 1: match\.method must be/],
  ['[{"match":{"range":"1,2"},"then":{"status":500}}]', /^fault rule 1: match\.range must be/],
  ['[{"match":{"nth":0},"then":{"status":500}}]', /^fault rule 1: match\.nth must be/],
  ['[{"match":{"nth":[3,2]},"then":{"status":500}}]', /^fault rule 1: match\.nth must be .* at least 3$/],
  ['[{"match":{"nth":[1,2,3]},"then":{"status":500}}]', /^fault rule 1: match\.nth must be .* pair/],
  ['[{"match":{}}]', /^fault rule 1: then must be a JSON object$/],
  ['[{"then":{}}]', /^fault rule 1: then must have exactly one of status, /],
  ['[{"then":{"status":500,"flipByteAt":1}}]', /^fault rule 1: then must have exactly one of/],
  ['[{"then":{"flipByteAt":1,"body":"x"}}]', /^fault rule 1: then has headers or a body/],
  ['[{"then":{"closeAfterBytes":-1}}]', /^fault rule 1: then\.closeAfterBytes must be/],
  ['[{"then":{"drip":{"closeAfterBytes":1}}}]', /^fault rule 1: then\.drip\.bytesPerSecond must be/],
  ['[{"then":{"trickle":0}}]', /^fault rule 1: then\.trickle must be/],
  ['[{"then":{"stallAfterBytes":1.5}}]', /^fault rule 1: then\.stallAfterBytes must be/],
  ['[{"then":{"ignoreRange":false}}]', /^fault rule 1: then\.ignoreRange must be true$/],
  ['[{"then":{"wrongContentRange":"a\\nb"}}]', /^fault rule 1: then\.wrongContentRange must be/],
  ['[{"then":{"redirect":{"to":"x"}}}]', /^fault rule 1: then\.redirect has an unknown field "to"$/],
  ['[{"then":{"redirect":{"expiresAfterRequests":-1}}}]', /^fault rule 1: then\.redirect\.expiresAfterR/],
  ['[{"then":{"challenge":{"always":1}}}]', /^fault rule 1: then\.challenge\.always must be true or false$/],
  ['[{"then":{"retryAfter":{"status":500,"seconds":1}}}]', /^fault rule 1: then\.retryAfter\.status must be/],
  ['[{"then":{"retryAfter":{"status":429}}}]', /^fault rule 1: then\.retryAfter\.seconds must be/],
  ['[{"then":{"status":200,"headers":{"a b":"c"}}}]', /^fault rule 1: then\.headers\.a b is not a possible/],
  ['[{"then":{"status":200,"headers":{"a":1}}}]', /^fault rule 1: then\.headers\.a must be/],
];

for (const [text, message] of MALFORMED) {
  test(`the rules ${text} are refused by name`, () => {
    assert.throws(
      () => parseFaults(JSON.parse(text)),
      (error) =>
        error instanceof PullError && error.code === 'option-malformed' && message.test(error.message),
    );
  });
}
