import assert from 'node:assert/strict';
import { test } from 'node:test';
import { headerAt } from '../../../src/export/file-tree.js';
import { flatten } from '../../../src/export/flatten.js';
import { effectOf } from '../../../src/export/layer-changes.js';
import { PullError } from '../../../src/format/error.js';
import type { TarSource } from '../../../src/format/tar-entries.js';
import { type Random, seededRandom } from '../../support/random.js';
import { type Entry, sourceOf, tarOf } from '../../support/tars.js';

const directory = (name: string): Entry => ({ name, type: '5' });
const symlink = (name: string, linkName: string): Entry => ({ name, type: '2', linkName });
const hardLink = (name: string, linkName: string): Entry => ({ name, type: '1', linkName });

function effect(path: string, ...entries: readonly Entry[]): string {
  return effectOf(sourceOf(tarOf(...entries)), path.split('/'));
}

test('a layer hides a path by a file, a whiteout or an opaque directory, there or on the way', () => {
  for (const own of [
    { name: './a/b/c' },
    { name: 'a/b/.wh.c' },
    { name: 'a/b/.wh..wh..opq' },
    { name: 'a/.wh.b' },
    { name: 'a/.wh..wh..opq' },
    { name: 'a/b/c', type: '3' } as const,
  ])
    assert.equal(effect('a/b/c', directory('a/'), directory('./a/b'), own), 'covers', String(own.name));
  assert.equal(effect('a/b/c', directory('a'), { name: 'a/x' }, hardLink('a/b', '/a/x')), 'covers');
  assert.equal(effect('a/b/c', { name: '.wh..wh..opq' }), 'covers');
  for (const own of [directory('a/b/c'), { name: 'a/b/cc' }, { name: 'a/b/.wh.cc' }, directory('a')])
    assert.equal(effect('a/b/c', directory('a'), directory('a/b'), own), 'leaves', String(own.name));
});

test('a layer whose names may lead elsewhere by what lies below it is not clear, wherever they stand', () => {
  for (const [path, ...entries] of [
    ['a/b', { name: 'a/b' }],
    ['a/b', { name: 'a/b' }, directory('a')],
    ['a', { name: 'a' }, { name: 'x/y' }],
    ['a', { name: 'a' }, { name: 'x/.wh.y' }],
    ['a', { name: 'a' }, { name: '../b' }],
    ['a', { name: 'a' }, hardLink('b', 'below')],
    ['a', hardLink('a', 'below')],
    ['a', symlink('a', 'b')],
    ['a/b', symlink('a', 'b')],
    ['a', { name: 'x' }, symlink('x', 'y'), hardLink('a', 'x')],
    ['a', { name: 'a' }, directory('b'), symlink('b', 'c'), { name: 'b/c' }],
    ['a', { name: 'a' }, { name: '.wh..wh.plnk/1.2' }],
    ['a', { name: 'a' }, { name: '.wh.' }],
  ] as const)
    assert.equal(effect(path, ...entries), 'unclear', `${path} ${entries.map(({ name }) => name)}`);
});

const NAMES = ['a', 'b', 'c'];

/** A small layer; most of them state directories before what is in them. */
function randomLayer(random: Random): TarSource {
  const entries: Entry[] = [];
  const isTidy = random.chance(0.8);
  const nameOf = () => NAMES[random.int(0, 2)]!;
  for (let left = random.int(1, 4); left > 0; left--) {
    const names = Array.from({ length: random.int(1, 3) }, nameOf);
    if (isTidy)
      for (let end = 1; end < names.length; end++) entries.push(directory(names.slice(0, end).join('/')));
    const name = names.join('/');
    const parent = name.slice(0, name.lastIndexOf('/') + 1);
    const kind = random.int(0, 11);
    if (kind < 4) entries.push({ name, content: 'x'.repeat(random.int(0, 2)) });
    else if (kind < 6) entries.push(directory(name));
    else if (kind < 8) entries.push({ name: `${parent}.wh.${names.at(-1)}` });
    else if (kind < 9) entries.push({ name: `${parent}.wh..wh..opq` });
    else if (kind < 11)
      entries.push(symlink(name, random.chance(0.5) ? nameOf() : `/${nameOf()}/${nameOf()}`));
    else
      entries.push(
        hardLink(name, entries.find(({ type = '0' }) => type === '0')?.name.toString() ?? nameOf()),
      );
  }
  return sourceOf(tarOf(...entries));
}

/** What is at a path of these layers, of which the lowest has this number. */
function at(path: string, layers: readonly TarSource[], lowest: number): string {
  const tree = flatten(layers, { only: { path, asRoot: false } });
  return Array.from({ length: tree.count }, (_, row) => {
    const content = tree.type[row] === 0x30 ? `${tree.layer[row]! + lowest} ${tree.contentStart[row]}` : '';
    return `${headerAt(tree, row).toString('latin1')}${content}`;
  }).join('\n');
}

function outcome(run: () => string): string | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof PullError && error.code === 'path-not-found') return error.message;
    return undefined;
  }
}

test('what is at a path is the same without the layers that are hidden from it', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e6));
  const random = seededRandom(seed);
  let covered = 0;
  for (let image = 0; image < 1200; image++) {
    const layers = Array.from({ length: random.int(2, 4) }, () => randomLayer(random));
    const path = Array.from({ length: random.int(1, 3) }, () => NAMES[random.int(0, 2)]).join('/');
    let cover = layers.length - 1;
    let found = effectOf(layers[cover]!, path.split('/'));
    while (found === 'leaves' && cover > 0) found = effectOf(layers[--cover]!, path.split('/'));
    if (found !== 'covers' || cover === 0) continue;
    const whole = outcome(() => at(path, layers, 0));
    // Lower layers that make no file system are not looked at.
    if (whole === undefined) continue;
    covered += 1;
    assert.equal(
      outcome(() => at(path, layers.slice(cover), cover)),
      whole,
      `seed ${seed}, image ${image}, ${path}`,
    );
  }
  assert.ok(covered > 40, String(covered));
});
