import assert from 'node:assert/strict';
import { test } from 'node:test';
import { abortError, onAbort, throwIfAborted } from '../../../src/format/abort.js';
import { PullError } from '../../../src/format/error.js';

test('the error of an abort is its reason where that is a PullError, otherwise it has the reason as its cause', () => {
  const own = new PullError('terminated', 'stopped');
  assert.equal(abortError(AbortSignal.abort(own), 'it was stopped'), own);
  for (const reason of [new Error('enough'), 'enough', null]) {
    const { code, message, cause } = abortError(AbortSignal.abort(reason), 'it was stopped');
    assert.deepEqual([code, message, cause], ['interrupted', 'it was stopped', reason]);
  }
  throwIfAborted(new AbortController().signal, 'it was stopped');
  assert.throws(() => throwIfAborted(AbortSignal.abort(own), ''), own);
});

test('actions run in order, once, unless they were removed; after the abort at once', () => {
  const controller = new AbortController();
  const done: string[] = [];
  const add = (name: string) => onAbort(controller.signal, () => done.push(name));
  add('first');
  const remove = add('removed');
  add('last');
  remove();
  controller.abort();
  controller.abort();
  add('late');
  assert.deepEqual(done, ['first', 'last', 'late']);
});

test('a thousand actions are one listener of the signal', (t) => {
  const { signal } = new AbortController();
  const { mock } = t.mock.method(signal, 'addEventListener');
  for (let i = 0; i < 1000; i++) onAbort(signal, () => {})();
  for (let i = 0; i < 1000; i++) onAbort(signal, () => {});
  assert.equal(mock.callCount(), 1);
});
