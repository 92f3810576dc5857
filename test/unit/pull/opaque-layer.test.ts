import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planLimits } from '../../../src/plan/spans.js';
import type { Results, Task } from '../../../src/pool/messages.js';
import { Semaphore } from '../../../src/pool/semaphore.js';
import { Fetcher } from '../../../src/pull/fetcher.js';
import { OpaqueLayer } from '../../../src/pull/opaque-layer.js';
import { type CachedContentRows, noCachedContents } from '../../../src/store/cached-contents.js';
import { ExtentList } from '../../../src/store/extents.js';
import type { PackId } from '../../../src/store/paths.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';
import { warnings } from '../../support/pull.js';

const OTHER = 'a'.repeat(32) as PackId;
const OWN = 'b'.repeat(32) as PackId;
const HELD: CachedContentRows = { packs: [OTHER], slots: new Uint32Array(new SharedArrayBuffer(20)) };

/** Pulls a stream whose tar has 100 bytes in `OTHER` while anything is held; `proofs` are what it hashes to each time. */
function pullStream(proofs: readonly (string | null)[]) {
  const { metadata: _, ...layer } = fakeLayer();
  const held: CachedContentRows[] = [];
  const asked = { ranges: 0, proofs: 0 };
  const answer = async (task: Task) => {
    switch (task.task) {
      case 'fetch-opaque':
        asked.ranges += 1;
        return { pack: OWN, packOffset: 0, sender: 0, fetchedBytes: 1, requests: 1 };
      case 'decode-blob': {
        held.push(task.cached);
        const extents = new ExtentList();
        extents.push(task.cached === HELD ? OTHER : OWN, 0, 100);
        task.port.postMessage(extents.toRows());
        task.port.postMessage(null);
        return { blobDigest: layer.blob.digest, tarBytes: 100, pack: OWN, compression: 'zstd' as const };
      }
      default:
        return { digest: proofs[asked.proofs++]! } as Results['verify-layer'];
    }
  };
  const pool = fakePool(answer);
  const { context, events } = fakeContext({ support: pool });
  const fetcher = new Fetcher({ context, startPool: async () => pool, layers: 1 });
  const options = { context, fetcher, layer, row: 0, decoders: new Semaphore(1), cached: async () => HELD };
  const blob = { blobBytes: layer.blob.sizeBytes, cached: [] };
  const pulling = new OpaqueLayer(options, planLimits(4), blob).pull();
  return { pulling, held, asked, events, layer };
}

test('a layer whose shared bytes are deleted before it is verified is fetched again, and shares nothing', async () => {
  const { pulling, held, asked, events, layer } = pullStream([null, fakeLayer().diffId]);
  const { extents } = await pulling;
  assert.deepEqual(extents.packs, [OWN]);
  assert.deepEqual(held, [HELD, noCachedContents()]);
  assert.equal(asked.ranges, 2);
  assert.deepEqual(warnings(events), [
    `the store lost contents that layer ${layer.blob.digest} shares; fetching the layer again`,
  ]);
});

test('a layer whose own bytes are deleted fails at once, and so does one with another tar', async () => {
  const gone = pullStream([null, null]);
  await assert.rejects(gone.pulling, { code: 'digest-mismatch', message: /missing bytes/ });
  assert.equal(gone.asked.ranges, 2, 'the second time it shared nothing');
  const other = pullStream([`sha256:${'1'.repeat(64)}`]);
  await assert.rejects(other.pulling, { code: 'digest-mismatch' });
  assert.equal(other.asked.ranges, 1);
});
