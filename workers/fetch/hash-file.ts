import { createHash } from 'node:crypto';
import { closeSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openOwnFile } from '../../src/files/guarded-directory.js';
import { openFile } from '../../src/files/open-file.js';
import { wrapFsError } from '../../src/files/storage-error.js';
import { digestOfBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import type { HashFileResult, HashFileTask } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { setup } from '../context.js';
import { portMessages } from '../port-messages.js';

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
        const length = Math.min(BLOCK_BYTES, position + end - at);
        const read = wrapFsError(`read ${path}`, () => readSync(fd, block, 0, length, at));
        if (read === 0) throw new PullError('store-broken', `${path} ends before its time`);
        hash.update(block.subarray(0, read));
        at += read;
        count(setup.counters, 'verified', read);
        await nextTurn();
      }
    }
  } finally {
    closeSync(fd);
    port.close();
  }
  return { digest: digestOfBytes(hash.digest()) };
}
