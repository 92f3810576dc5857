import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkAt, pathAt } from '../../../src/export/file-tree.js';
import { flatten } from '../../../src/export/flatten.js';
import { type Entry, sourceOf, tarOf } from '../../support/tars.js';

const directory = (name: string): Entry => ({ name, type: '5' });
const symlink = (name: string, linkName: string): Entry => ({ name, type: '2', linkName });
const hardLink = (name: string, linkName: string): Entry => ({ name, type: '1', linkName });

const LOWER = [
  directory('etc'),
  directory('etc/ssl'),
  { name: 'etc/ssl/cert', content: 'lower' },
  { name: 'etc/ssl/gone' },
  { name: 'etc/passwd' },
  symlink('lib', 'usr/lib'),
  { name: 'usr/lib/café' },
  { name: 'usr/lib/a' },
  hardLink('usr/lib/b', 'usr/lib/a'),
  symlink('ssl', '/etc/ssl'),
  symlink('up', '../../../etc'),
  symlink('nowhere', 'not/there'),
  symlink('loop', 'loop'),
];
const UPPER = [directory('etc'), directory('etc/ssl'), { name: 'etc/ssl/.wh.gone' }, { name: 'etc/ssl/new' }];

function select(path: string, asRoot = false): string[] {
  const tree = flatten(
    [LOWER, UPPER].map((entries) => sourceOf(tarOf(...entries))),
    { only: { path, asRoot } },
  );
  return Array.from({ length: tree.count }, (_, row) => {
    const type = String.fromCharCode(tree.type[row]!);
    const link = type === '1' ? pathAt(tree, tree.target[row]!) : linkAt(tree, row);
    return `${type} ${pathAt(tree, row).toString()} ${link}`.trim();
  });
}

const SSL = ['5 ssl', '0 ssl/cert', '0 ssl/new'];

test('a directory keeps its last name and has what all layers make of it, by whatever links it is reached', () => {
  for (const path of ['/etc/ssl', 'etc/ssl/', './etc/../etc//ssl', 'up/ssl', '/ssl', '../ssl']) {
    assert.deepEqual(select(path), SSL, path);
  }
  assert.deepEqual(select('/lib'), ['5 lib', '0 lib/a', '1 lib/b lib/a', '0 lib/café']);
});

test('as the root, a directory has what is in it, and a file its name', () => {
  assert.deepEqual(select('/etc/ssl', true), ['5', '0 cert', '0 new']);
  assert.deepEqual(select('/etc/passwd', true), ['0 passwd']);
  assert.equal(select('/').length, select('.', true).length);
});

test('a file is one row; another name of a hard link has the content, and a link that leads nowhere is itself', () => {
  assert.deepEqual(select('/lib/café'), ['0 café']);
  assert.deepEqual(select('/usr/lib/b'), ['0 b']);
  assert.deepEqual(select('/nowhere'), ['2 nowhere not/there']);
  assert.deepEqual(select('/loop'), ['2 loop loop']);
});

test('what is not there is refused with the nearest thing that is', () => {
  for (const [path, nearest] of [
    ['/etc/ssl/gone', 'the nearest directory is "/etc/ssl"'],
    ['/etc/none/x/y', 'the nearest directory is "/etc"'],
    ['/lib/none', 'the nearest directory is "/usr/lib"'],
    ['/etc/passwd/x', '"/etc/passwd" is no directory'],
    ['/nowhere/x', 'the nearest directory is "/"'],
    ['/loop/x', 'the nearest directory is "/"'],
  ] as const)
    assert.throws(() => select(path), { code: 'path-not-found', message: new RegExp(`: ${nearest}$`) }, path);
});
