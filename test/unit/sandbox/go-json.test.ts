import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goJson, goText } from '../../../src/sandbox/toc-text.js';

test('what Go escapes is escaped', () => {
  assert.equal(
    goJson('a<b>&\u2028\u2029"\\\n\u0001é'),
    '"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\"\\\\\\n\\u0001é"',
  );
});

test('each byte that is not UTF-8 becomes one escaped U+FFFD, and a U+FFFD of the name stays itself', () => {
  const bytes = Buffer.from([0x61, 0xe9, 0xe2, 0x82, 0xf0, 0x9f, 0x98, 0x80, 0xef, 0xbf, 0xbd, 0xff]);
  assert.equal(goJson(goText(bytes)), '"a\\ufffd\\ufffd\\ufffd😀\ufffd\\ufffd"');
});

test('a name that spells an escape is left alone', () => {
  assert.equal(goJson(goText(Buffer.from('\\udc80'))), '"\\\\udc80"');
});
