import { closeSync, fstatSync, readSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { guardDirectory, withGuarded } from '../../src/files/guarded-directory.js';
import { openFile } from '../../src/files/open-file.js';
import { LAYOUT_HINT, wrapLayoutError } from '../../src/files/storage-error.js';
import { PullError } from '../../src/format/error.js';
import type { RangeJob, RangeTotals } from '../../src/registry/range-client.js';

/**
 * Bytes read with one call: as much as what comes from a socket at a time, and one allocation for
 * each.
 */
const BLOCK_BYTES = 64 * 1024;

/** Blobs come from the only endpoint there is. */
const ENDPOINT = 0;

/** Whether a blob lies in a file on this machine. */
export function isFile(url: string): boolean {
  return url.startsWith('file:');
}

/**
 * Reads bytes [start, end) of a blob in a layout on this machine, as `fetchRange` fetches them:
 * limited, counted and handed on in the same way. No link in the layout is followed.
 * @throws PullError `blob-not-found` when its file is gone; `metadata-malformed` for a blob of
 *   another size than its manifest says or that is no file; `store-denied` when the file cannot be
 *   read; what `onBytes` throws
 */
export async function readRange({
  blob,
  start,
  end,
  onSize,
  onBytes,
  events,
}: RangeJob): Promise<RangeTotals> {
  const file = openBlob(new URL(blob.url));
  try {
    onSize?.(file.sizeBytes);
    if (onSize === undefined && file.sizeBytes !== blob.sizeBytes) {
      const message = `${file.path} has ${file.sizeBytes} bytes for blob ${blob.digest}, not ${blob.sizeBytes}`;
      throw new PullError('metadata-malformed', message, { hint: LAYOUT_HINT });
    }
    events.requested();
    for (let at = start; at < Math.min(end, file.sizeBytes); ) {
      // Fresh memory each time, as the caller hands it on.
      const chunk = readBlock(file, at, Buffer.allocUnsafeSlow(Math.min(BLOCK_BYTES, end - at)));
      at += chunk.length;
      events.received(chunk.length, ENDPOINT);
      await Promise.all([events.limit?.(chunk.length), onBytes(chunk), nextTurn()]);
    }
    return { requests: 1, receivedBytes: end - start };
  } finally {
    closeSync(file.fd);
  }
}

/** A blob in an open file. */
export interface OpenBlob {
  readonly fd: number;
  /** What messages call the file. */
  readonly path: string;
  /** Where in the file it begins. */
  readonly start: number;
  readonly sizeBytes: number;
}

/**
 * Opens a blob of a layout on this machine. Close its `fd`.
 * @throws PullError `blob-not-found` when its file is gone; `store-denied` when it cannot be read
 */
export function openBlob(url: URL): OpenBlob {
  const path = fileURLToPath(url);
  const start = url.searchParams.get('start');
  if (start !== null) {
    const fd = readFrom(path, () => openFile(path));
    return { fd, path, start: Number(start), sizeBytes: Number(url.searchParams.get('size')) };
  }
  // LAYOUT/blobs/sha256/HEX
  guardDirectory(dirname(dirname(dirname(path))), 'blobs', 'sha256');
  const fd = readFrom(path, () => withGuarded(path, (at) => openFile(path, undefined, at)));
  return { fd, path, start: 0, sizeBytes: fstatSync(fd).size };
}

/**
 * Reads into `block` from offset `at` of the blob on. Returns the part of it that was read.
 * @throws PullError `metadata-malformed` at the end of the file; as `openBlob`
 */
export function readBlock({ fd, path, start, sizeBytes }: OpenBlob, at: number, block: Buffer): Buffer {
  const length = Math.min(block.length, sizeBytes - at);
  const read = readFrom(path, () => readSync(fd, block, 0, length, start + at));
  if (read === 0)
    throw new PullError('metadata-malformed', `${path} became shorter while it was read`, {
      hint: LAYOUT_HINT,
    });
  return block.subarray(0, read);
}

function readFrom<T>(path: string, action: () => T): T {
  return wrapLayoutError(path, action, (cause) => {
    return new PullError('blob-not-found', `${path} is not there any more`, { hint: LAYOUT_HINT, cause });
  });
}
