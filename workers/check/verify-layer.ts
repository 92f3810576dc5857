import { createHash, type Hash } from 'node:crypto';
import { closeSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BlockTagger } from '../../src/export/block-tags.js';
import { openOwnFile } from '../../src/files/guarded-directory.js';
import { openFile } from '../../src/files/open-file.js';
import { wrapFsError } from '../../src/files/storage-error.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import type {
  HashFileResult,
  HashFileTask,
  VerifyLayerResult,
  VerifyLayerTask,
} from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { ExtentList, type ExtentRows } from '../../src/store/extents.js';
import { ifMissing, PackReader } from '../../src/store/pack-reader.js';
import { paths, portMessages, setup, writeRun } from '../context.js';

/** Blocks of 1 MiB hashed before other tasks of this thread may run: about 4 ms. */
const BLOCKS_A_TURN = 8;

/** Tar programs write records of 20 blocks, the last one filled up with zeros (POSIX pax, "-b"). */
const RECORD_BYTES = 10_240;

/** Hashes the extents that arrive through the port. */
export async function verifyLayer(task: VerifyLayerTask): Promise<VerifyLayerResult> {
  const hash = createHash('sha256');
  const tagger = task.tags && new BlockTagger(task.tags);
  const reader = new PackReader(paths);
  let lengthBytes = 0;
  try {
    for await (const rows of portMessages<ExtentRows>(task.port)) {
      let blocks = 0;
      let started = threadClock.start();
      for (const block of reader.blocks(ExtentList.fromRows(rows))) {
        hash.update(block);
        tagger?.add(block);
        lengthBytes += block.length;
        count(setup.counters, 'verified', block.length);
        threadClock.end('hash', started, block.length);
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
        started = threadClock.start();
      }
    }
  } catch (error) {
    return ifMissing(error, { digest: null, isTagged: false });
  } finally {
    reader.close();
    task.port.close();
  }
  return proof(task, hash, lengthBytes, tagger);
}

/** If the digest is not the DiffID, tries again with the zeros that complete the last record. */
function proof(
  { diffId }: VerifyLayerTask,
  hash: Hash,
  lengthBytes: number,
  tagger: BlockTagger | undefined,
): VerifyLayerResult {
  const digest = digestOfBytes(hash.copy().digest());
  const missingBytes = (RECORD_BYTES - (lengthBytes % RECORD_BYTES)) % RECORD_BYTES;
  const asIs = () => ({ digest, isTagged: tagger?.end() ?? false });
  if (digest === diffId || missingBytes === 0) return asIs();
  const zeros = Buffer.alloc(missingBytes);
  if (digestOfBytes(hash.update(zeros).digest()) !== diffId) return asIs();
  tagger?.add(zeros);
  return { digest: diffId, isTagged: tagger?.end() ?? false, padding: writeRun(zeros) };
}

/** Bytes read and hashed at a time: they fit the cache of a core. */
const BLOCK_BYTES = 512 * 1024;

/** Hashes a part of a file while it is being written. */
export async function hashFile({ path, file, position, port }: HashFileTask): Promise<HashFileResult> {
  const hash = createHash('sha256');
  const fd = wrapFsError(`open ${path}`, () => (file ? openOwnFile(file) : openFile(path)));
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  let at = position;
  try {
    for await (const end of portMessages<number>(port)) {
      while (at < position + end) {
        const started = threadClock.start();
        const length = Math.min(BLOCK_BYTES, position + end - at);
        const read = wrapFsError(`read ${path}`, () => readSync(fd, block, 0, length, at));
        if (read === 0) throw new PullError('store-broken', `${path} ends before its time`);
        hash.update(block.subarray(0, read));
        at += read;
        count(setup.counters, 'verified', read);
        threadClock.end('hash', started, read);
        await nextTurn();
      }
    }
  } finally {
    closeSync(fd);
    port.close();
  }
  return { digest: digestOfBytes(hash.digest()) };
}
