import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { pidNamespaceId } from '../../../src/files/process-id.js';
import { removeTree, treeBytes } from '../../../src/files/remove-tree.js';
import { deadScratches, makeScratch, removeDeadScratches } from '../../../src/files/scratch.js';
import { temporaryDirectory } from '../../support/temporary.js';

function deadPid(): number {
  return spawnSync('true').pid;
}

test('directories of processes that have ended are found, those of others are not', (t) => {
  const parent = temporaryDirectory(t);
  const own = makeScratch(parent);
  const dead = join(parent, `bench-${deadPid()}-${pidNamespaceId()}-aB3dE6`);
  const others = [
    `bench-1-${pidNamespaceId()}-aB3dE6`,
    // Of another machine or container, and changed a moment ago.
    `bench-${deadPid()}-0123456789abcdef-aB3dE6`,
    'bench-mark',
    `my-bench-${deadPid()}-${pidNamespaceId()}-aB3dE6`,
  ];
  for (const path of [dead, ...others.map((name) => join(parent, name))])
    mkdirSync(join(path, 'a'), { recursive: true });
  const link = join(parent, `bench-${deadPid()}-${pidNamespaceId()}-link00`);
  symlinkSync('/', link);
  lutimesSync(link, 0, 0);
  assert.deepEqual(deadScratches(parent), [dead]);
  removeDeadScratches(parent);
  assert.deepEqual(readdirSync(parent).sort(), [basename(own), basename(link), ...others].sort());
});

test('a tree with read-only directories is removed by a user, and its disk space is known', (t) => {
  const parent = temporaryDirectory(t);
  const [path, inner] = [join(parent, 'tree'), join(parent, 'tree', 'a', 'b')];
  mkdirSync(inner, { recursive: true });
  writeFileSync(join(inner, 'file'), Buffer.alloc(100_000, 1));
  assert.ok(treeBytes(path) >= 100_000);
  asUser([parent, path, join(path, 'a'), inner], () => {
    chmodSync(inner, 0o500);
    chmodSync(join(path, 'a'), 0o000);
    removeTree(path);
  });
  assert.ok(!existsSync(path));
  removeTree(path);
});

const NOBODY = 65_534;

/** Permissions do not bind root: it becomes another user, who gets these paths. */
function asUser(paths: readonly string[], action: () => void): void {
  if (process.geteuid?.() !== 0) {
    action();
    return;
  }
  for (const path of paths) chownSync(path, NOBODY, NOBODY);
  process.seteuid!(NOBODY);
  try {
    action();
  } finally {
    process.seteuid!(0);
  }
}
