import { closeSync, openSync, writeSync } from 'node:fs';
import { TAR_END, tarHeader, tarPadding } from '../src/format/tar-writer.js';
import { contentPieces, createPrng } from '../src/sandbox/sample-content.js';

const FILES_A_DIRECTORY = 200;
const MIN_BYTES = 1024;
const MAX_BYTES = 8192;
/** Of no date: the same number of files gives the same bytes. */
const MTIME = { mtimeSeconds: 1_700_000_000, mtimeNanos: 0 };

/** Writes a tar of `files` text files of 1 to 8 KB; another `seed` gives other files. */
export function writeSmallFilesTar(path: string, files: number, seed: number): void {
  const prng = createPrng(1, seed);
  const file = openSync(path, 'w');
  try {
    for (let index = 0; index < files; index += 1) {
      const sizeBytes = MIN_BYTES + prng.below(MAX_BYTES - MIN_BYTES);
      const name = `srv${seed}/${Math.floor(index / FILES_A_DIRECTORY)}/${index}.txt`;
      const header = tarHeader({ type: '0', name, mode: 0o644, uid: 0, gid: 0, sizeBytes, ...MTIME });
      const content = contentPieces({ kind: 'text', seed: prng.next(), sizeBytes });
      writeSync(file, Buffer.concat([header, ...content, tarPadding(sizeBytes)]));
    }
    writeSync(file, TAR_END);
  } finally {
    closeSync(file);
  }
}
