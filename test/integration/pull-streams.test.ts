import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { planOpaque } from '../../src/plan/opaque.js';
import { planLimits } from '../../src/plan/spans.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { startPullingChild } from '../support/child.js';
import { addBlob, emptyLayout, nameImage, noise, tarOf } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const CONNECTIONS = 16;
const FILE_BYTES = 8 * 2 ** 20;

/** Peak memory of a pull with two workers, and what each further worker may add. */
const MAX_BYTES = 256e6;
const MAX_BYTES_PER_WORKER = 25e6;

/** A stored block of gzip, which may be cut. */
const BLOCK_BYTES = 64 * 1024;

/** An image of gzip layers of which the registry never sends the last range; how many bytes of their tars can be decoded. */
async function startStallingRegistry(t: TestContext, layers: number) {
  const layout = emptyLayout(t);
  const large = noise(1, FILE_BYTES);
  const tars = Array.from({ length: layers }, (_, i) => tarOf({ [`large-${i}`]: large }));
  const blobs = tars.map((tar) => gzipSync(tar, { level: 0 }));
  const digests = blobs.map((blob) => addBlob(layout, blob));
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  const descriptors = digests.map((digest, i) => ({ mediaType, digest, size: blobs[i]!.length }));
  nameImage(
    layout,
    'it',
    descriptors,
    tars.map((tar) => addBlob(layout, tar)),
  );
  let decodableBytes = 0;
  const faults = blobs.map((blob, i): FaultRule => {
    const { blobStart, blobEnd } = [
      ...planOpaque({ blobBytes: blob.length, cached: [] }, planLimits(CONNECTIONS)),
    ].at(-1)!;
    decodableBytes += blobStart - BLOCK_BYTES;
    const match = { path: digests[i]!, range: `${blobStart}-${blobEnd - 1}` };
    return { match, action: { stallAfterBytes: 0 } };
  });
  const { host } = await startSandbox(t, { layout, faults });
  return { host, decodableBytes };
}

test('with eight workers eight gzip layers are decoded at once, in memory that is bounded', {
  skip: process.platform === 'linux' ? false : 'reads the memory of a process in /proc',
}, async (t) => {
  const workers = 8;
  const { host, decodableBytes } = await startStallingRegistry(t, workers);
  const options = { store: temporaryDirectory(t), workers, connections: CONNECTIONS };
  let peakBytes: number | undefined;
  const child = startPullingChild(t, { image: `${host}/x:it`, options }, (line, process) => {
    // No layer has its end yet: all that is decoded is so by decoders that are under way.
    if (line.event !== 'progress' || line.writtenBytes < decodableBytes || peakBytes !== undefined) return;
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${process.pid}/status`, 'utf8')) ?? [];
    peakBytes = Number(kib) * 1024;
    process.kill('SIGKILL');
  });
  assert.equal(await child.gone, 'SIGKILL', JSON.stringify(child.lines.at(-1)));
  t.diagnostic(`${(peakBytes! / 1e6).toFixed(0)} MB`);
  assert.ok(peakBytes! < MAX_BYTES + (workers - 2) * MAX_BYTES_PER_WORKER, `${peakBytes} bytes`);
});
