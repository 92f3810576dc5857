import { closeSync, openSync, readSync } from 'node:fs';
import { TAR_END, tarHeader, tarPadding } from '../format/tar-writer.js';
import { contentPieces } from './sample-content.js';
import type { TreeItem } from './sample-tree.js';

/** Read size of a tar file. */
const READ_BYTES = 2 ** 20;

const TYPES = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** The tar of a generated layer, piece by piece. */
export function* treeTar(items: readonly TreeItem[], mtimeSeconds: number): Generator<Buffer> {
  for (const { type, path, target, content, mode } of items) {
    const { sizeBytes } = content;
    const ids = { uid: 0, gid: 0, mtimeSeconds, mtimeNanos: 0 };
    yield tarHeader({ type: TYPES[type], name: path, linkName: target, mode, sizeBytes, ...ids });
    yield* contentPieces(content);
    if (sizeBytes % 512 !== 0) yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

/** A tar file as it is, piece by piece; read synchronously, as directoryTar is. */
export function* fileTar(path: string): Generator<Buffer> {
  const file = openSync(path, 'r');
  try {
    for (;;) {
      const piece = Buffer.allocUnsafe(READ_BYTES);
      const readBytes = readSync(file, piece);
      if (readBytes === 0) return;
      yield piece.subarray(0, readBytes);
    }
  } finally {
    closeSync(file);
  }
}
