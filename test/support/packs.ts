import { closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type StorePaths, storePaths } from '../../src/store/paths.js';

/** Inverts one byte of a file. */
export function flipByte(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    if (readSync(fd, byte, 0, 1, at) !== 1) throw new Error(`${path} has no byte ${at}`);
    byte[0]! ^= 0xff;
    writeSync(fd, byte, 0, 1, at);
  } finally {
    closeSync(fd);
  }
}

/** Paths of the store's files that end like this: `.pack`, `.idx`, `.idx.open`, `.bad`. */
export function packFiles(store: string, suffix: string): string[] {
  const { packs }: StorePaths = storePaths(store);
  return readdirSync(packs)
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join(packs, name));
}

/** Where these bytes first stand in the store's packs. */
export function findInPacks(store: string, bytes: Buffer): { path: string; at: number } {
  for (const path of packFiles(store, '.pack')) {
    const at = readFileSync(path).indexOf(bytes);
    if (at >= 0) return { path, at };
  }
  throw new Error('no pack has these bytes');
}
