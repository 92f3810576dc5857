import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EndpointChoice } from '../../../src/registry/endpoint-choice.js';

const NONE: ReadonlySet<number> = new Set();

test('the first endpoint is asked, and those tried already are not', () => {
  const choice = new EndpointChoice(2);
  assert.equal(choice.next('a', NONE, 0), 0);
  assert.equal(choice.next('a', new Set([0]), 0), 1);
  assert.equal(choice.next('a', new Set([0, 1]), 0), undefined);
});

test('an endpoint that failed is left alone for 10 s, then 20 s, and asked all the same when there is no other', () => {
  const choice = new EndpointChoice(2);
  choice.failed(0, 1000);
  choice.failed(0, 2000); // under way when the first failed
  assert.equal(choice.next('a', NONE, 10_999), 1);
  assert.equal(choice.next('a', new Set([1]), 10_999), 0);
  assert.equal(choice.next('a', NONE, 11_000), 0);
  choice.failed(0, 11_000);
  assert.equal(choice.next('a', NONE, 30_999), 1);
  assert.equal(choice.next('a', NONE, 31_000), 0);
  choice.succeeded(0);
  choice.failed(0, 40_000);
  assert.equal(choice.next('a', NONE, 50_000), 0);
});

test('an endpoint that lacks a blob is not asked for it while another is left', () => {
  const choice = new EndpointChoice(2);
  choice.lacks(0, 'a');
  assert.equal(choice.next('a', NONE, 0), 1);
  assert.equal(choice.next('b', NONE, 0), 0);
  assert.equal(choice.next('a', new Set([1]), 0), 0);
});
