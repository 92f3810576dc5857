import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readLayers } from '../../../bench/layer-toc.js';
import { verifiedPipeline } from '../../../bench/peers.js';
import { FIXTURE_LAYOUT } from '../../support/fixture-layout.js';
import { skipUnless } from '../../support/programs.js';
import { startSandbox } from '../../support/sandbox.js';
import { temporaryDirectory } from '../../support/temporary.js';

const SAMPLE = { layoutDir: FIXTURE_LAYOUT, ref: 'chunked-v1' };

test('the pipeline that zpull is compared with proves the tars of all layers, and the blobs where it is to', {
  skip: skipUnless('curl', 'zstd', 'openssl'),
}, async (t) => {
  const [first] = readLayers(SAMPLE);
  const path = `/v2/bench/blobs/${first!.descriptor.digest}`;
  const whole = await startSandbox(t);
  // Behind the frames: no byte of the tar changes.
  const atEnd = first!.descriptor.size - 1;
  const flipped = await startSandbox(t, { faults: [{ match: { path }, action: { flipByteAt: atEnd } }] });
  const cut = await startSandbox(t, { faults: [{ match: { path }, action: { closeAfterBytes: 1000 } }] });
  const run = (hashesBlob: boolean, { host }: { host: string }, name: string) =>
    verifiedPipeline('zstd:chunked', hashesBlob).run(host, SAMPLE, join(temporaryDirectory(t), name));
  assert.ok((await run(true, whole, 'whole')) > 0);
  await run(false, flipped, 'flipped');
  await assert.rejects(run(true, flipped, 'flipped-hashed'), /bash ended with 1/);
  await assert.rejects(run(false, cut, 'cut'), /bash ended with 1/);
});
