import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
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

test('a tree with read-only directories is removed, and its disk space is known', (t) => {
  const path = join(temporaryDirectory(t), 'tree');
  mkdirSync(join(path, 'a', 'b'), { recursive: true });
  writeFileSync(join(path, 'a', 'b', 'file'), Buffer.alloc(100_000, 1));
  assert.ok(treeBytes(path) >= 100_000);
  chmodSync(join(path, 'a', 'b'), 0o500);
  chmodSync(join(path, 'a'), 0o000);
  removeTree(path);
  assert.ok(!existsSync(path));
  removeTree(path);
});
