import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChallenges } from '../../../src/registry/challenge.js';

function plain(header: string | string[] | undefined) {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

test('a bearer challenge gives its parameters', () => {
  assert.deepEqual(plain('Bearer realm="https://a/token",service="reg",scope="repository:x:pull,push"'), [
    ['bearer', { realm: 'https://a/token', service: 'reg', scope: 'repository:x:pull,push' }],
  ]);
});

test('several challenges in one header and in several are told apart', () => {
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

test('nonsense ends the reading and keeps what came before', () => {
  assert.deepEqual(plain('Basic realm="a", "what"'), [['basic', { realm: 'a' }]]);
  assert.deepEqual(plain('Bearer realm="open'), [['bearer', {}]]);
  assert.deepEqual(plain(''), []);
  assert.deepEqual(plain(undefined), []);
  assert.ok(plain('a,'.repeat(10_000)).length <= 16);
});
