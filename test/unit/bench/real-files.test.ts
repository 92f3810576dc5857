import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { chooseFiles } from '../../../bench/real-files.js';
import { temporaryDirectory } from '../../support/temporary.js';

const FILES = 200;
const FILE_BYTES = 1000;

/** A tree of directories, links and files that are all equal. */
function tree(t: TestContext): string {
  const root = temporaryDirectory(t);
  mkdirSync(join(root, 'a'));
  mkdirSync(join(root, 'b'));
  symlinkSync('nowhere', join(root, 'link'));
  for (let i = 0; i < FILES; i++)
    writeFileSync(join(root, i % 2 === 0 ? 'a' : 'b', `${i}`), Buffer.alloc(FILE_BYTES));
  return root;
}

function namesOf(tar: string): string[] {
  return execFileSync('tar', ['-tf', tar], { encoding: 'utf8' }).trim().split('\n');
}

test('real files are chosen by their names, about as many bytes as are wanted, and lie in layers one after the other', (t) => {
  const root = tree(t);
  const directory = temporaryDirectory(t);
  const half = chooseFiles(root, (FILES * FILE_BYTES) / 2);
  const [one = ''] = half.write(join(directory, 'one'), [1], 1);
  const layers = half.write(join(directory, 'two'), [0.5, 0.5], 1);
  const names = namesOf(one);
  const files = names.filter((name) => /\d$/.test(name)).length;
  assert.ok(files > FILES / 4 && files < (FILES * 3) / 4, `${files} files`);
  assert.deepEqual(layers.flatMap(namesOf), names);
  assert.deepEqual(
    names.filter((name) => !/\d$/.test(name) && name !== 'link'),
    ['a/', 'b/'],
  );
  const [again = ''] = chooseFiles(root, (FILES * FILE_BYTES) / 2).write(join(directory, 'again'), [1], 1);
  assert.ok(readFileSync(again).equals(readFileSync(one)));
});

test('the second version of real files has other bytes in about one of nine, and the same names', (t) => {
  const directory = temporaryDirectory(t);
  const all = chooseFiles(tree(t), FILES * FILE_BYTES);
  const [before = ''] = all.write(join(directory, 'v1-'), [1], 1);
  const [after = ''] = all.write(join(directory, 'v2-'), [1], 2);
  assert.deepEqual(namesOf(after), namesOf(before));
  const [old, changed] = [readFileSync(before), readFileSync(after)];
  // Each changed file is shorter than the distance of two bytes that differ.
  const others = old.filter((byte, i) => byte !== changed[i]).length;
  assert.ok(others > FILES / 30 && others < FILES / 4, `${others} files`);
});
