import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  parseChallenges,
  parseContentLength,
  parseContentRange,
  rangeHeader,
} from '../../../src/registry/headers.js';

test('a content range becomes half-open', () => {
  assert.deepEqual(parseContentRange('bytes 10-19/100'), { range: { start: 10, end: 20 }, sizeBytes: 100 });
  assert.deepEqual(parseContentRange('Bytes 0-0/*'), { range: { start: 0, end: 1 }, sizeBytes: undefined });
  assert.deepEqual(parseContentRange('bytes */100'), { range: undefined, sizeBytes: 100 });
});

test('a malformed content range is undefined', () => {
  for (const header of [
    undefined,
    '',
    'bytes',
    'bytes */*',
    'bytes 5-4/10',
    'bytes 0-10/10',
    'bytes -1-3/10',
    'bytes 0-9/10, bytes 0-9/10',
    'items 0-9/10',
    'bytes 0-9999999999999999/*',
    'bytes 0-9/9999999999999999',
    'bytes 0x1-9/10',
  ]) {
    assert.equal(parseContentRange(header), undefined, header);
  }
});

test('a range header is inclusive', () => {
  assert.equal(rangeHeader(0, 1), 'bytes=0-0');
  assert.equal(rangeHeader(10, 20), 'bytes=10-19');
});

test('a content length is a number, NaN or nothing', () => {
  assert.equal(parseContentLength('12'), 12);
  assert.equal(parseContentLength(undefined), undefined);
  for (const header of ['', '-1', '1.5', '1e3', '9999999999999999', '5, 5']) {
    assert.ok(Number.isNaN(parseContentLength(header)), header);
  }
});

function plain(header: string | string[] | undefined) {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

test('a bearer challenge gives its parameters', () => {
  assert.deepEqual(plain('Bearer realm="https://a/token",service="reg",scope="repository:x:pull,push"'), [
    ['bearer', { realm: 'https://a/token', service: 'reg', scope: 'repository:x:pull,push' }],
  ]);
});

test('several challenges in one header and in several are distinguished', () => {
  const both = [
    ['basic', { realm: 'a' }],
    ['bearer', { realm: 'b', service: 'c' }],
  ];
  assert.deepEqual(plain('Basic realm="a", Bearer realm="b", service="c"'), both);
  assert.deepEqual(plain(['Basic realm="a"', 'BEARER Realm="b" , service = c']), both);
});

test('quoted strings may hold escapes, commas and equals signs', () => {
  assert.deepEqual(plain('Bearer realm="a \\"b\\" \\\\, Basic x=1"'), [
    ['bearer', { realm: 'a "b" \\, Basic x=1' }],
  ]);
});

test('schemes without parameters and with token68 stand between others', () => {
  assert.deepEqual(plain('Negotiate, NTLM TlRMTVM=, Bearer realm=x'), [
    ['negotiate', {}],
    ['ntlm', {}],
    ['bearer', { realm: 'x' }],
  ]);
});

test('of two equal parameters the first counts', () => {
  assert.deepEqual(plain('Bearer realm="a", realm="b"'), [['bearer', { realm: 'a' }]]);
});

test('malformed text ends the parse and keeps the challenges before it', () => {
  assert.deepEqual(plain('Basic realm="a", "what"'), [['basic', { realm: 'a' }]]);
  assert.deepEqual(plain('Bearer realm="open'), [['bearer', {}]]);
  assert.deepEqual(plain(''), []);
  assert.deepEqual(plain(undefined), []);
  assert.ok(plain('a,'.repeat(10_000)).length <= 16);
});
