import { MessageChannel } from 'node:worker_threads';
import { type Digest, parseDigest } from '../../src/format/digest.js';
import { fromFailure } from '../../src/format/error.js';
import type { Compression } from '../../src/format/layer-format.js';
import type { DecodeBlobResult, LookUpResult } from '../../src/pool/pull-tasks.js';
import { createCounters, createDecodedRoom } from '../../src/pool/shared-memory.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { noCachedContents } from '../../src/store/cached-contents.js';
import { ExtentList, type ExtentRows } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { openStore, storePaths } from '../../src/store/paths.js';
import { tableOf } from './layer-tables.js';
import { addBlob, emptyLayout, nameImage } from './layout.js';
import { networkSetup } from './network.js';
import { startSandbox } from './sandbox.js';
import { type Lifetime, temporaryDirectory } from './temporary.js';

type Sandbox = Parameters<typeof startSandbox>[1];

/** Starts a pool of threads over a store; both end with the test. */
export async function startWorkers(t: Lifetime, store = temporaryDirectory(t), threads = 1) {
  openStore(store);
  const setup = { storeRoot: store, counters: createCounters(), network: networkSetup() };
  const pool = await WorkerPool.start({ threads, tasksPerThread: 4, setup, onEvent: () => {} });
  t.after(() => pool.destroy());
  return { store, pool, counters: setup.counters, threads };
}

/** A registry with this blob in it. */
export async function serveBlob(t: Lifetime, bytes: Buffer, options?: Sandbox): Promise<BlobSource> {
  const layout = emptyLayout(t);
  const digest = addBlob(layout, bytes);
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: bytes.length };
  nameImage(layout, 'it', [layer], [digest]);
  const { host } = await startSandbox(t, { layout, ...options });
  const url = `http://${host}/v2/x/blobs/${digest}`;
  return { url, digest: parseDigest(digest, 'blob'), sizeBytes: bytes.length };
}

/** Fetches a blob in ranges of this size, all at the same time. Returns the extents of its raw bytes. */
export async function fetchOpaque(
  pool: WorkerPool,
  blob: BlobSource,
  rangeBytes: number,
): Promise<ExtentList> {
  const starts = Array.from({ length: Math.ceil(blob.sizeBytes / rangeBytes) }, (_, i) => i * rangeBytes);
  const fetched = await Promise.all(
    starts.map(async (blobStart) => {
      const blobEnd = Math.min(blob.sizeBytes, blobStart + rangeBytes);
      const result = await pool.run({ task: 'fetch-opaque', blob, blobStart, blobEnd });
      if (result.failure !== undefined) throw fromFailure(result.failure);
      return { ...result, lengthBytes: blobEnd - blobStart };
    }),
  );
  const extents = new ExtentList();
  for (const { pack, packOffset, lengthBytes } of fetched) extents.push(pack, packOffset, lengthBytes);
  return extents;
}

/** Decodes a blob whose raw bytes are these extents, announced one by one. Returns result and extents of the tar. */
export async function decodeBlob(
  pool: WorkerPool,
  blob: BlobSource,
  compression: Compression,
  raw: ExtentList,
  cached = noCachedContents(),
  room = createDecodedRoom(2 ** 30),
): Promise<{ result: DecodeBlobResult; extents: ExtentList }> {
  const { port1, port2 } = new MessageChannel();
  const extents = new ExtentList();
  const told = new Promise<void>((resolve) => {
    port1.on('message', (rows: ExtentRows | null) => {
      if (rows === null) resolve();
      else extents.append(ExtentList.fromRows(rows));
    });
  });
  const running = pool.run(
    { task: 'decode-blob', blob, compression, cached, room, takenBytes: 0, port: port2 },
    [port2],
  );
  for (let row = 0; row < raw.count; row++) {
    const one = raw.slice(raw.startAt(row), raw.startAt(row) + raw.lengthAt(row));
    port1.postMessage(one.toRows());
  }
  port1.postMessage(null);
  try {
    const result = await running;
    await told;
    return { result, extents };
  } finally {
    port1.close();
  }
}

/** The bytes of extents. */
export function readExtents(store: string, extents: ExtentList): Buffer {
  const reader = new PackReader(storePaths(store));
  try {
    const bytes = Buffer.alloc(extents.lengthBytes);
    let at = 0;
    for (const block of reader.blocks(extents)) at += block.copy(bytes, at);
    return bytes;
  } finally {
    reader.close();
  }
}

/** Returns the raw bytes of a blob that the packs have. */
export async function lookUpBlobRuns(
  pool: WorkerPool,
  blob: Digest,
): Promise<Pick<LookUpResult, 'packs' | 'opaque'>> {
  const tables = [tableOf([], 1, 1)];
  return await pool.run({ task: 'look-up', tables, blobs: [blob], opaqueBlobs: [blob] });
}

/** A zstd frame of so many blocks of 128 KiB, four bytes each, that are one letter again and again (RFC 8878, 3.1.1.2). */
export function zstdBomb(blocks: number): Buffer {
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]);
  const body = Buffer.alloc(blocks * 4);
  for (let at = 0; at < body.length; at += 4) {
    body.writeUIntLE(((2 ** 17) << 3) | 2 | (at + 4 === body.length ? 1 : 0), at, 3);
    body[at + 3] = 0x78;
  }
  return Buffer.concat([header, body]);
}
