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

/** A range that notes when it may read again. */
function begin(order: ReadingOrder) {
  const { took, end } = order.begin();
  const range = {
    isCached: false,
    end,
    took() {
      const wait = took();
      range.isCached = wait !== undefined;
      void wait?.then(() => {
        range.isCached = false;
      });
    },
  };
  return range;
}

test('a range waits while an earlier one takes bytes, and goes on when that has none', async () => {
  const { order, endTurn } = startOrder();
  const [first, second] = [begin(order), begin(order)];
  first.took();
  second.took();
  assert.deepEqual([first.isCached, second.isCached], [false, true]);
  for (let turn = 0; turn < 3; turn++) {
    await endTurn();
    first.took();
    assert.ok(second.isCached);
  }
  await endTurn();
  assert.ok(second.isCached, 'the first one took bytes in that turn');
  await endTurn();
  assert.ok(!second.isCached);
});

test('a range that comes first in a turn is held because of the turn before', async () => {
  const { order, endTurn } = startOrder();
  const [first, second] = [begin(order), begin(order)];
  first.took();
  await endTurn();
  second.took();
  assert.ok(second.isCached);
  await endTurn();
  await endTurn();
  second.took();
  assert.ok(!second.isCached, 'the first one has taken nothing for two turns');
});

test('ranges that are held go on one a turn, the earliest first', async () => {
  const { order, endTurn, isWatching } = startOrder();
  const [first, second, third, fourth] = [begin(order), begin(order), begin(order), begin(order)];
  first.took();
  for (const range of [fourth, second, third]) range.took();
  const held = () => [second, third, fourth].map(({ isCached }) => isCached);
  await endTurn();
  assert.deepEqual(held(), [true, true, true]);
  await endTurn();
  assert.deepEqual(held(), [false, true, true]);
  await endTurn();
  assert.deepEqual(held(), [false, false, true]);
  await endTurn();
  assert.deepEqual(held(), [false, false, false]);
  assert.ok(!isWatching(), 'a thread without bytes has no turns to end');
});

test('a range that has ended holds up no other, and is not waited for', async () => {
  const { order, endTurn } = startOrder();
  const [first, second, third] = [begin(order), begin(order), begin(order)];
  first.took();
  second.took();
  third.took();
  first.end();
  second.end();
  for (let turn = 0; turn < 2; turn++) await endTurn();
  assert.ok(!third.isCached);
  third.took();
  assert.ok(!third.isCached);
});
