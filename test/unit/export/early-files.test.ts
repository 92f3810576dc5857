import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { keepFiles } from '../../../src/export/early-files.js';
import { DIRECTORY, FILE, NO_ROW } from '../../../src/export/file-tree.js';
import { type Inode, RowWriter } from '../../../src/export/tree-nodes.js';
import { OpenDirectory } from '../../../src/files/open-directory.js';
import { temporaryDirectory } from '../../support/temporary.js';

function inodeOf(type: number, layer: number): Inode {
  const sizeBytes = type === FILE ? 1 : 0;
  const numbers = { mode: 0o755, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, devMajor: 0, devMinor: 0 };
  return {
    type,
    layer,
    contentStart: 512,
    sizeBytes,
    sparse: undefined,
    ...numbers,
    link: '',
    xattrRecords: '',
    row: -1,
  };
}

/** The rows of a tree that has only this. */
function rowsOf(path: string, inode: Inode) {
  const writer = new RowWriter(1, path.length);
  writer.add(inode, path, NO_ROW);
  return writer.finish();
}

test('a file that was written in the place of a directory of a lower layer is removed', async (t) => {
  const directory = temporaryDirectory(t);
  // The lowest layer has a/x/c, the next one a file in the place of a, the last one the directory a again.
  const early = [
    { ...rowsOf('a/x/c', inodeOf(FILE, 0)), layer: 0, written: Uint8Array.of(0) },
    { ...rowsOf('a', inodeOf(FILE, 1)), layer: 1, written: Uint8Array.of(1) },
  ];
  writeFileSync(join(directory, 'a'), 'x');
  const tree = rowsOf('a', inodeOf(DIRECTORY, 2));
  const root = OpenDirectory.hold(directory);
  const task = { task: 'keep-files', early, tree, rowOf: [0, 1, 2], directory: root.shared } as const;
  const isKept = await keepFiles(task);
  assert.deepEqual([...isKept], [0]);
  assert.deepEqual(readdirSync(directory), []);
});
