import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JsonCursor, wordSet } from '../../../src/format/json-cursor.js';
import { seededRandom, throwsError } from './fixture.js';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Reads a whole document through the cursor, as far as the cursor can: numbers must be integers. */
function read(cursor: JsonCursor): Json {
  const next = cursor.peek();
  if (next === 0x7b) {
    const members: [string, Json][] = [];
    for (let more = cursor.firstMember(); more; more = cursor.nextMember()) {
      members.push([cursor.text(), read(cursor)]);
    }
    return Object.fromEntries(members);
  }
  if (next === 0x5b) {
    const elements: Json[] = [];
    for (let more = cursor.firstElement(); more; more = cursor.nextElement()) elements.push(read(cursor));
    return elements;
  }
  if (next === 0x22) {
    cursor.readString();
    return cursor.text();
  }
  if (cursor.skipNull()) return null;
  if (next !== 0x74 && next !== 0x66) return cursor.readInteger();
  cursor.skipValue();
  return next === 0x74;
}

const CHARACTERS = ['a', 'Z', '"', '\\', '/', '\n', '\u0001', 'é', '\u2028', '😀', '\ufffd', '{', ']', ' '];
const KEYS = ['type', 'name', '__proto__', 'constructor', '', 'a"b'];

function randomJson(random: () => number, depth: number): Json {
  const below = (n: number) => Math.floor(random() * n);
  switch (below(depth > 3 ? 4 : 6)) {
    case 0:
      return null;
    case 1:
      return random() < 0.5;
    case 2:
      return Math.floor((random() - 0.5) * 2 ** below(54));
    case 3:
      return Array.from({ length: below(8) }, () => CHARACTERS[below(CHARACTERS.length)]).join('');
    case 4:
      return Array.from({ length: below(5) }, () => randomJson(random, depth + 1));
    default:
      return Object.fromEntries(
        Array.from({ length: below(5) }, () => [
          KEYS[below(KEYS.length)] ?? '',
          randomJson(random, depth + 1),
        ]),
      );
  }
}

/** The same document with white space strewn between its tokens. */
function spread(text: string, random: () => number): string {
  const space = () => [' ', '\n', '\t', '\r', '', '', ''][Math.floor(random() * 7)] ?? '';
  return text.replace(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^"[\]{},:]+/g, (token) => space() + token + space());
}

test('random documents read as JSON.parse reads them, and skipping one ends where it does', () => {
  const random = seededRandom(20);
  for (let round = 0; round < 2000; round++) {
    const value = randomJson(random, 0);
    const text = spread(JSON.stringify(value), random);
    const cursor = new JsonCursor(Buffer.from(text), 'It');
    // -0 is an integer like 0 here, and JSON.stringify writes it so.
    assert.deepEqual(read(cursor), JSON.parse(text));
    cursor.end();
    const skipping = new JsonCursor(Buffer.from(`${text} 1`), 'It');
    skipping.skipValue();
    assert.equal(skipping.readInteger(), 1);
  }
});

test('a document with one byte changed or cut is refused when JSON.parse refuses it', () => {
  const random = seededRandom(21);
  let refused = 0;
  for (let round = 0; round < 5000; round++) {
    const bytes = Buffer.from(spread(JSON.stringify([randomJson(random, 0)]), random));
    const at = Math.floor(random() * bytes.length);
    if (round % 3 === 0) bytes[at] = Math.floor(random() * 128);
    const cut = round % 3 === 1 ? bytes.subarray(0, at) : bytes;
    let valid = true;
    try {
      JSON.parse(cut.toString());
    } catch {
      valid = false;
      refused++;
    }
    const skip = () => {
      const cursor = new JsonCursor(cut, 'It');
      cursor.skipValue();
      cursor.end();
    };
    if (valid) skip();
    else throwsError(skip, 'metadata-malformed', /^It is malformed at byte \d+: expected /);
  }
  assert.ok(refused > 1000);
});

for (const number of ['0', '-0', '1.5', '-1e9', '1E+2', '0.1e-3', '123456789012345678901234567890']) {
  test(`the number ${number} can be skipped`, () => {
    const cursor = new JsonCursor(Buffer.from(`[${number}]`), 'It');
    cursor.skipValue();
    cursor.end();
  });
}

for (const number of ['01', '1.', '.5', '+1', '-', '1e', '1e+', '--1', '1-', '0x1', 'NaN', 'tru', 'nul']) {
  test(`the value ${number} cannot be skipped`, () => {
    const cursor = new JsonCursor(Buffer.from(`[${number}]`), 'It');
    throwsError(() => cursor.skipValue(), 'metadata-malformed', /expected/);
  });
}

test('integers are read exactly up to the largest safe one and refused beyond', () => {
  const integer = (text: string) => new JsonCursor(Buffer.from(text), 'It').readInteger();
  assert.equal(integer('9007199254740991'), Number.MAX_SAFE_INTEGER);
  assert.equal(integer(' -9007199254740991'), Number.MIN_SAFE_INTEGER);
  assert.ok(Object.is(integer('-0'), 0));
  for (const bad of ['9007199254740992', '1'.repeat(400), '1.0', '1e1', '00', '-', '', '"1"']) {
    throwsError(() => integer(bad), 'metadata-malformed', /expected an integer/);
  }
});

test('values nested too deep are refused before the stack is', () => {
  const nested = (depth: number) => new JsonCursor(Buffer.from('['.repeat(depth) + ']'.repeat(depth)), 'It');
  nested(65).skipValue();
  throwsError(() => nested(66).skipValue(), 'metadata-malformed', /at most 64 nested values/);
  throwsError(() => nested(1_000_000).skipValue(), 'metadata-malformed', /at most 64 nested values/);
});

test('a plain string may not hold an escape, before or after one that does', () => {
  const cursor = new JsonCursor(Buffer.from('["\\n","abc","d\\/e"]'), 'It');
  cursor.firstElement();
  cursor.readString();
  cursor.nextElement();
  cursor.readPlainString();
  assert.equal(cursor.text(), 'abc');
  cursor.nextElement();
  throwsError(
    () => cursor.readPlainString(),
    'metadata-malformed',
    /byte 14: expected a string without escapes/,
  );
});

test('words are found by their text, escaped or not', () => {
  const words = wordSet('type name size a');
  const match = (text: string) => {
    const cursor = new JsonCursor(Buffer.from(`"${text}"`), 'It');
    cursor.readString();
    return cursor.match(words);
  };
  assert.deepEqual(['type', 'name', 'size', 'a', '\\u0061', 't\\u0079pe'].map(match), [0, 1, 2, 3, 3, 0]);
  assert.deepEqual(
    ['Type', 'nam', 'sizes', '', 'b', '\\u0062', 'far too long for any'].map(match),
    [-1, -1, -1, -1, -1, -1, -1],
  );
});

test('bytes that are not UTF-8 become U+FFFD', () => {
  const cursor = new JsonCursor(Buffer.from([0x22, 0x61, 0xe9, 0x22]), 'It');
  cursor.readString();
  assert.equal(cursor.text(), 'a\ufffd');
});
