import assert from 'node:assert/strict';
import { test } from 'node:test';
import { strictParser } from '../../../src/format/strict-json.js';
import { throwsError } from './fixture.js';

const MAX_JSON_DEPTH = 100;
const MAX_OBJECT_KEYS = 10_000;

const parser = strictParser({ size: 'integer', name: null, inner: { size: 'integer', list: { k: null } } });
const parse = (text: string | Buffer): unknown => parser(Buffer.from(text), 'The document');

/** Documents that Go's encoding/json reads as we do. */
const SAME: readonly string[] = [
  '{}',
  ' [1, 2.5, -0, 1e3, true, false, null, "x"]\n\t\r',
  '"text"',
  '7',
  '{"size":-0,"other":1.5,"inner":{"size":9007199254740991}}',
  '{"size":null}',
  '{"":1," ":2}',
  '{"a":{"b":1},"c":[{"b":1},{"b":2}]}',
  '{"name":{"Size":1,"size":2,"SIZE":3}}',
  '{"inner":{"list":[{"k":1},{"k":2}]}}',
  '{"\\u0000":"\\u0000","text":"\\ud83d\\ude00"}',
  '{"Unknown":1,"unknown":2}',
];

for (const text of SAME) {
  test(`${text} is read as JSON.parse reads it`, () => {
    assert.deepEqual(parse(text), JSON.parse(text));
  });
}

/** Documents that others refuse, or read in another way than JSON.parse. */
const REFUSED: ReadonlyArray<readonly [text: string | Buffer, message: RegExp]> = [
  ['', /at byte 0/],
  ['{', /at byte 1/],
  ['{"a":1,}', /at byte 7/],
  ['[1,]', /at byte 3/],
  ['{} {}', /at byte 3: expected the end/],
  ['{}\0', /at byte 2: expected the end/],
  ['"\0"', /at byte 1/],
  ['01', /at byte 1/],
  ['+1', /at byte 0/],
  ['NaN', /at byte 0/],
  ['\ufeff{}', /at byte 0/],
  ['\u00a0{}', /at byte 0/],
  [Buffer.from([0x22, 0xff, 0x22]), /is not UTF-8/],
  [Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), /is not UTF-8/],
  ['{"a":1,"a":2}', /has the key "a" twice, at byte 11/],
  ['{"a":1,"\\u0061":2}', /has the key "a" twice/],
  ['[[{"b":{"a":1,"c":[],"a":1}}]]', /has the key "a" twice/],
  ['{"__proto__":1,"__proto__":2}', /has the key "__proto__" twice/],
  // Go reads either half of a surrogate pair as U+FFFD.
  ['{"\\ud800":1,"\\udc00":2}', /has the key "�" twice/],
  ['{"\\ud800":1,"\ufffd":2}', /has the key "�" twice/],
  ['{"Size":1}', /has the key "Size", which some programs take for "size"/],
  ['{"\u017fize":1}', /take for "size"/],
  ['{"inner":{"list":[{"\u212a":1}]}}', /take for "k"/],
  ['{"INNER":{}}', /take for "inner"/],
  ['{"size":1.0}', /has "1\.0" where an integer must be/],
  ['{"size":1e3}', /has "1e3" where an integer must be/],
  ['{"inner":{"size":0.99999999999999999999}}', /where an integer must be/],
];

for (const [text, message] of REFUSED) {
  test(`${JSON.stringify(text.toString())} is malformed`, () => {
    throwsError(() => parse(text), 'metadata-malformed', message);
  });
}

test('documents nest up to a bound, however they do', () => {
  const nested = (depth: number, [open, close]: readonly [string, string]) =>
    `${open.repeat(depth)}1${close.repeat(depth)}`;
  for (const pair of [
    ['[', ']'],
    ['{"a":', '}'],
  ] as const) {
    assert.ok(parse(nested(MAX_JSON_DEPTH, pair)));
    for (const depth of [MAX_JSON_DEPTH + 1, 400_000]) {
      throwsError(() => parse(nested(depth, pair)), 'metadata-malformed', /at most 100 nested values/);
    }
    throwsError(() => parse(pair[0].repeat(400_000)), 'metadata-malformed', /at most 100 nested values/);
  }
});

test('an object has a bounded number of keys, a list any number of objects', () => {
  const members = (count: number) => Array.from({ length: count }, (_, i) => `"${i}":{}`).join();
  assert.ok(parse(`{${members(MAX_OBJECT_KEYS)}}`));
  const message = /has an object of over 10000 keys/;
  throwsError(() => parse(`[{${members(MAX_OBJECT_KEYS + 1)}}]`), 'metadata-malformed', message);
  assert.ok(parse(`[${'{"a":1},'.repeat(MAX_OBJECT_KEYS)}0]`));
});
