import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../../src/format/decoded-limits.js';
import { parseDigest } from '../../../src/format/digest.js';
import { roomLeft, takeRoom } from '../../../src/pool/decoded-room.js';
import { DecodedAllowance } from '../../../src/pull/decoded-allowance.js';
import type { WantedLayer } from '../../../src/pull/layer.js';
import { fakeLayer } from '../../support/fake-context.js';
import { tableOf } from '../../support/layer-tables.js';

const GIB = 2 ** 30;

/** A layer with a blob of 1000 bytes. */
function layerOf(number: number): WantedLayer {
  return { ...fakeLayer(), diffId: parseDigest(`sha256:${String(number).padStart(64, '0')}`, 'DiffID') };
}

const RATIO_BYTES = 1000 * MAX_DECODED_RATIO;

/** What a layer may decode to beyond the ratio. */
function freeBytes(allowance: DecodedAllowance, layer: WantedLayer): number {
  const { room, takenBytes } = allowance.forStream(layer);
  return takenBytes + roomLeft(room);
}

/** A layer is decoded as one stream, up to so many bytes beyond the ratio. */
function decode(allowance: DecodedAllowance, layer: WantedLayer, bytes: number): boolean {
  const { room, takenBytes } = allowance.forStream(layer);
  const isTaken = takeRoom(room, Math.max(0, bytes - takenBytes));
  if (isTaken) allowance.noteStream(layer, RATIO_BYTES + bytes);
  return isTaken;
}

test('a layer may have a sparse file of 10 GiB, and no 64 GiB of zeros', () => {
  const allowance = new DecodedAllowance();
  assert.equal(freeBytes(allowance, layerOf(1)), 10 * GIB);
  const bomb = tableOf([], 800, 64 * GIB);
  assert.throws(() => allowance.noteTable(layerOf(1), bomb), { code: 'metadata-malformed' });
  assert.ok(!decode(allowance, layerOf(1), 64 * GIB));
});

test('what layers decode to beyond the ratio is taken from what all of them have together', () => {
  const allowance = new DecodedAllowance();
  const [first, second, third] = [layerOf(1), layerOf(2), layerOf(3)];
  allowance.noteTable(first, tableOf([], 800, RATIO_BYTES));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES);
  assert.ok(decode(allowance, second, 5));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES - 5);
  assert.ok(decode(allowance, first, FREE_DECODED_BYTES - 5));
  assert.equal(freeBytes(allowance, third), 0);
});

test('a layer that is decoded once more, or as one stream after its table, counts once', () => {
  const allowance = new DecodedAllowance();
  const [layer, other] = [layerOf(1), layerOf(2)];
  allowance.noteTable(layer, tableOf([], 800, RATIO_BYTES + 5 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 5 * GIB);
  assert.ok(decode(allowance, layer, 6 * GIB));
  assert.ok(decode(allowance, layer, 3 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 6 * GIB);
});

test('a table that states more than that is malformed, and takes nothing', () => {
  const allowance = new DecodedAllowance();
  const most = RATIO_BYTES + FREE_DECODED_BYTES;
  const tooMuch = {
    code: 'metadata-malformed',
    message: new RegExp(`states ${most + 1} bytes for a blob of 1000`),
  };
  assert.throws(() => allowance.noteTable(layerOf(1), tableOf([], 800, most + 1)), tooMuch);
  allowance.noteTable(layerOf(1), tableOf([], 800, most));
  assert.equal(freeBytes(allowance, layerOf(2)), 0);
  allowance.noteTable(layerOf(2), tableOf([], 800, RATIO_BYTES));
});
