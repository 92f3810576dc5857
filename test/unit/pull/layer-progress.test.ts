import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Awaited, LayerBoard, type LayerSource } from '../../../src/pull/layer-progress.js';

function boardOf(...keys: string[]) {
  const board = new LayerBoard();
  board.list(keys.map((diffId) => ({ digest: `blob-${diffId}`, diffId, sizeBytes: 100, isCached: false })));
  const received = keys.map(() => 0);
  const source: { awaited: Awaited | undefined } & LayerSource = {
    receivedByLayer: () => received,
    awaited: 'answer',
  };
  return { board, received, source, keys };
}

const PLAN = { totalBytes: 60, receivedBytes: 10, reusedBytes: 5, resumedBytes: 7 };

const told = (board: LayerBoard) =>
  board
    .changes()
    .map(({ diffId, state, receivedBytes, totalBytes }) => [diffId, state, receivedBytes, totalBytes]);

test('only what changed is told, from the list to the end', () => {
  const { board, received, source, keys } = boardOf('a', 'b');
  assert.deepEqual(told(board), [
    ['a', 'waiting', 0, 100],
    ['b', 'waiting', 0, 100],
  ]);
  assert.deepEqual(told(board), []);
  board.plan('a', PLAN);
  board.follow(keys, source);
  assert.deepEqual(told(board), [['a', 'waiting', 10, 60]]);
  received[0] = 20;
  assert.deepEqual(told(board), [['a', 'fetching', 30, 60]]);
  received[0] = 50;
  assert.deepEqual(told(board), [['a', 'verifying', 60, 60]]);
  board.done('a');
  received[0] = 55;
  assert.deepEqual(told(board), [['a', 'done', 60, 60]]);
});

test('bytes to fetch again make a layer fetch once more', () => {
  const { board, received, source, keys } = boardOf('a');
  board.plan('a', PLAN);
  board.follow(keys, source);
  received[0] = 50;
  assert.deepEqual(told(board), [['a', 'verifying', 60, 60]]);
  board.addTotal('a', 40);
  assert.deepEqual(told(board), [['a', 'fetching', 60, 100]]);
});

test('a layer of another process is there when that process is done, or this one pulls it', () => {
  const { board } = boardOf('a', 'b', 'c');
  board.share(new Set(['a', 'b']), new Set(['c']));
  assert.deepEqual(
    told(board).map(([key, state]) => [key, state]),
    [
      ['a', 'shared'],
      ['b', 'shared'],
      ['c', 'waiting'],
    ],
  );
  board.share(new Set(), new Set(['b']));
  assert.deepEqual(
    told(board).map(([key, state]) => [key, state]),
    [
      ['a', 'reused'],
      ['b', 'waiting'],
    ],
  );
});

test('layers that are not listed, such as configs, are nothing to tell of', () => {
  const { board } = boardOf('a');
  board.changes();
  board.plan('config', PLAN);
  board.addTotal('config', 1);
  board.done('config');
  board.reuse('config');
  assert.deepEqual(board.changes(), []);
});
