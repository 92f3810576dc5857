import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { changeImage, emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

/** 10,240 bytes are a record of tar: two of them would be 20,480, these are some less. */
const TAR = tarOf({ one: noise(1, 10_000), two: noise(2, 3000) });
const RECORD_BYTES = 10_240;

/** A pull of a layer that has only this tar in it, whose config states the digest of that one. */
async function pullWith(t: TestContext, tar: Buffer, stated: Buffer) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tar]);
  changeImage(layout, 'it', (_, config) => {
    config.rootfs.diff_ids = [digestOf(stated)];
  });
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  return { store, pulling: pull(`${host}/x:it`, { store }) };
}

test('zeros that a writer has dropped at the end of a tar are restored', async (t) => {
  const missing = RECORD_BYTES - (TAR.length % RECORD_BYTES);
  const { store, pulling } = await pullWith(t, TAR, Buffer.concat([TAR, Buffer.alloc(missing)]));
  const { result } = await pulling;
  assertProven(result);
  assert.deepEqual(packFiles(store, '.idx.open'), [], 'the pack of the padding is sealed like any');
});

test('no zeros are added to a tar whose DiffID matches, does not match with zeros either, or that has full records', async (t) => {
  const exact = await pullWith(t, TAR, TAR);
  assertProven((await exact.pulling).result);
  const missing = RECORD_BYTES - (TAR.length % RECORD_BYTES);
  const whole = Buffer.concat([TAR, Buffer.alloc(missing)]);
  const tooLong = Buffer.concat([whole, Buffer.alloc(RECORD_BYTES)]);
  for (const [tar, stated] of [
    [TAR, tooLong],
    [TAR, Buffer.concat([TAR, Buffer.alloc(missing, 1)])],
    [whole, tooLong],
  ] as const) {
    const { pulling } = await pullWith(t, tar, stated);
    assert.equal((await failureOf(pulling)).code, 'digest-mismatch');
  }
});
