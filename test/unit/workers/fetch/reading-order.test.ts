import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReadingOrder } from '../../../../workers/fetch/reading-order.js';

/** An order whose turns end when the test says so. */
function startOrder() {
  const watchers: Array<() => void> = [];
  const order = new ReadingOrder((action) => watchers.push(action));
  const endTurn = async () => {
    for (const action of watchers.splice(0)) action();
    await new Promise(setImmediate);
  };
  return { order, endTurn, isWatching: () => watchers.length > 0 };
}

/** A range that records whether it waits. */
function begin(order: ReadingOrder) {
  const { received, end } = order.begin();
  const range = {
    isWaiting: false,
    end,
    received() {
      const wait = received();
      range.isWaiting = wait !== undefined;
      void wait?.then(() => {
        range.isWaiting = false;
      });
    },
  };
  return range;
}

test('a range waits while an earlier one receives bytes, and continues when it receives none', async () => {
  const { order, endTurn } = startOrder();
  const [first, second] = [begin(order), begin(order)];
  first.received();
  second.received();
  assert.deepEqual([first.isWaiting, second.isWaiting], [false, true]);
  for (let turn = 0; turn < 3; turn++) {
    await endTurn();
    first.received();
    assert.ok(second.isWaiting);
  }
  await endTurn();
  assert.ok(second.isWaiting, 'the first one took bytes in that turn');
  await endTurn();
  assert.ok(!second.isWaiting);
});

test('a range that is the first in a turn waits if an earlier one received bytes in the last turn', async () => {
  const { order, endTurn } = startOrder();
  const [first, second] = [begin(order), begin(order)];
  first.received();
  await endTurn();
  second.received();
  assert.ok(second.isWaiting);
  await endTurn();
  await endTurn();
  second.received();
  assert.ok(!second.isWaiting, 'the first one has taken nothing for two turns');
});

test('waiting ranges continue one a turn, the earliest first', async () => {
  const { order, endTurn, isWatching } = startOrder();
  const [first, second, third, fourth] = [begin(order), begin(order), begin(order), begin(order)];
  first.received();
  for (const range of [fourth, second, third]) range.received();
  const waits = () => [second, third, fourth].map(({ isWaiting }) => isWaiting);
  await endTurn();
  assert.deepEqual(waits(), [true, true, true]);
  await endTurn();
  assert.deepEqual(waits(), [false, true, true]);
  await endTurn();
  assert.deepEqual(waits(), [false, false, true]);
  await endTurn();
  assert.deepEqual(waits(), [false, false, false]);
  assert.ok(!isWatching(), 'a thread without bytes has no turns to end');
});

test('no range waits for one that has ended', async () => {
  const { order, endTurn } = startOrder();
  const [first, second, third] = [begin(order), begin(order), begin(order)];
  first.received();
  second.received();
  third.received();
  first.end();
  second.end();
  for (let turn = 0; turn < 2; turn++) await endTurn();
  assert.ok(!third.isWaiting);
  third.received();
  assert.ok(!third.isWaiting);
});
