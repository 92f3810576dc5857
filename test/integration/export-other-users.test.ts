import assert from 'node:assert/strict';
import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ExportEvent, exportRootfs } from '../../src/api/export.js';
import { paxRecord } from '../../src/format/tar-writer.js';
import { exportUnderAttack, MALLORY, makeSecrets, makeTheirs, stateOf } from '../support/attack.js';
import { listDirectory } from '../support/listing.js';
import { skipUnless } from '../support/programs.js';
import { type Entry, storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { freshStore } from '../unit/store/support.js';

const isRootOnLinux = process.platform === 'linux' && process.getuid?.() === 0;
const skip = !isRootOnLinux && 'needs root on Linux, to be attacked by another user';
const skipWithoutTar = skipUnless('tar') || skip;

/** A directory that others reach, with secrets of root in `outside` and a directory of another user, `theirs`. */
async function prepare(t: TestContext, ...entries: Entry[]) {
  const paths = freshStore(t);
  const { diffIds } = await storeTars(paths, tarOf(...entries));
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const [outside, theirs] = [join(directory, 'outside'), join(directory, 'theirs')];
  makeSecrets(outside);
  makeTheirs(theirs);
  return { store: paths.root, diffIds, directory, outside, theirs };
}

const XATTR = paxRecord('SCHILY.xattr.user.x', 'y');

/** Names that `outside` has, too, so that what is led there does harm. */
const ENTRIES: Entry[] = [
  { name: 'etc', type: '5', uid: MALLORY, mode: 0o777, mtimeSeconds: 7 },
  { name: 'etc/sub', type: '5', uid: MALLORY, mode: 0o777, mtimeSeconds: 7 },
  { name: 'etc/file', content: 'from the image', uid: MALLORY, mode: 0o666 },
  { name: 'etc/soft', type: '2', linkName: 'file', uid: MALLORY },
  { name: 'etc/hard', type: '1', linkName: 'etc/file' },
  { name: 'etc/secret', content: 'from the image', records: XATTR, uid: MALLORY },
  { name: 'link', type: '2', linkName: 'etc', uid: MALLORY },
];

/** The root, which belongs to somebody else in the image. */
const ROOT: Entry = { name: './', type: '5', mode: 0o751, uid: 12, gid: 13, mtimeSeconds: 7 };

const SWAP = 'mv etc aside; ln -s ../outside etc';

interface Case {
  /** What the other user replaces, and when. */
  readonly what: string;
  readonly call: string;
  readonly name: string;
  readonly after?: boolean;
  readonly script?: string;
  /** Directories of theirs that are there before. */
  readonly there?: readonly string[];
}

const CASES: readonly Case[] = [
  { what: 'a directory just made', call: 'mkdirSync', name: 'etc', after: true },
  { what: 'a directory before there is one in it', call: 'mkdirSync', name: 'sub' },
  { what: 'a directory that was there', call: 'openSync', name: 'sub', there: ['etc', 'etc/sub'] },
  { what: 'a directory when files are written', call: 'openSync', name: 'file', there: ['etc'] },
  { what: 'a directory when a hard link is made', call: 'linkSync', name: 'hard', there: ['etc'] },
  { what: 'a directory when tar is started', call: 'spawn', name: 'tar', there: ['etc'] },
  {
    what: 'a symbolic link just made',
    call: 'symlinkSync',
    name: 'soft',
    after: true,
    script: 'rm etc/soft; mv old etc/soft',
    there: ['etc'],
  },
  {
    what: 'a directory that makes room',
    call: 'unlinkSync',
    name: 'inner',
    script: 'mv link/inner aside; ln -s ../../outside link/inner',
    there: ['link', 'link/inner'],
  },
];

for (const { what, call, name, after = false, script = SWAP, there = [] } of CASES) {
  test(`nothing outside changes when another user replaces ${what}`, { skip: skipWithoutTar }, async (t) => {
    const { store, diffIds, directory, outside, theirs } = await prepare(t, ...ENTRIES);
    for (const path of ['kept', ...there]) makeTheirs(join(theirs, path));
    // A file of root that they can rename, but neither read nor have.
    const old = join(theirs, 'old');
    writeFileSync(old, 'of root', { mode: 0o600 });
    const before = stateOf(outside);
    const attack = { call, name, after, script: `cd '${theirs}' && { ${script}; } >/dev/null 2>&1` };
    const options = { store, diffIds, directory: theirs, force: true };
    const { isAttacked } = await exportUnderAttack(options, attack, directory);
    assert.ok(isAttacked, 'the attack was never made');
    assert.deepEqual(stateOf(outside), before);
    const places = [old, join(theirs, 'etc/soft')];
    const file = places.find((path) => lstatSync(path, { throwIfNoEntry: false })?.isFile() === true);
    assert.equal(lstatSync(file!).uid, 0);
  });
}

test('an empty directory of another user is closed to them while root writes into it', {
  skip,
}, async (t) => {
  const { store, diffIds, directory, outside, theirs } = await prepare(t, ...ENTRIES);
  const before = stateOf(outside);
  const attack = {
    call: 'mkdirSync',
    name: 'etc',
    after: true,
    script: `cd '${theirs}' 2>/dev/null && ${SWAP}`,
  };
  const { code, isAttacked } = await exportUnderAttack(
    { store, diffIds, directory: theirs },
    attack,
    directory,
  );
  assert.deepEqual([code, isAttacked, stateOf(outside)], ['', true, before]);
  assert.deepEqual(readdirSync(theirs).sort(), ['etc', 'link']);
  const { uid, gid, mode } = statSync(theirs);
  assert.deepEqual([uid, gid, mode & 0o7777], [MALLORY, MALLORY, 0o755], 'it is theirs again');
});

test('root writes into directories of another user, made or replaced, what a directory of its own gets', {
  skip: skipWithoutTar,
}, async (t) => {
  const { store, diffIds, directory, theirs } = await prepare(t, ROOT, ...ENTRIES);
  const expected = join(directory, 'expected');
  await exportRootfs({ store, diffIds, directory: expected });
  const below = (path: string) => listDirectory(path).filter((line) => !line.startsWith(' | '));
  for (const [path, force] of [
    ['', false],
    ['new/deep', false],
    ['new2', false],
    ['', true],
  ] as const) {
    await exportRootfs({ store, diffIds, directory: join(theirs, path), force });
    assert.deepEqual(
      below(join(theirs, path)).filter((line) => !line.startsWith('new')),
      below(expected),
    );
  }
  assert.ok(readFileSync(join(theirs, 'etc/file'), 'utf8') === 'from the image');
});

test('parents of a destination are made where they were looked for', { skip }, async (t) => {
  const { store, diffIds, directory, outside, theirs } = await prepare(t, ...ENTRIES);
  const before = stateOf(outside);
  const script = `cd '${theirs}' && mv new aside && ln -s ../outside new`;
  const attack = { call: 'mkdirSync', name: 'new', after: true, script };
  const { code, isAttacked } = await exportUnderAttack(
    { store, diffIds, directory: join(theirs, 'new/sub/x') },
    attack,
    directory,
  );
  assert.deepEqual([code !== '', isAttacked, stateOf(outside)], [true, true, before]);
});

const SET_USER_ID: Entry = { name: 'su', mode: 0o4755 };
const DEVICE: Entry = { name: 'disk', type: '4', devMajor: 8, devMinor: 0, mode: 0o666 };
const CAPABLE: Entry = {
  name: 'ping',
  mode: 0o755,
  records: paxRecord(
    'SCHILY.xattr.security.capability',
    Buffer.from('0100000200040000000000000000000000000000', 'hex'),
  ),
};

for (const [what, entry, isClosed] of [
  ['a set-user-ID program', SET_USER_ID, true],
  ['a set-group-ID program', { name: 'wall', mode: 0o2755 }, true],
  ['a device', DEVICE, true],
  ['a program with capabilities', CAPABLE, true],
  ['a directory that hands its group down', { name: 'dir', type: '5', mode: 0o2777 }, false],
  ['a program', { name: 'ls', mode: 0o755 }, false],
] as const) {
  test(`the root of ${what} is ${isClosed ? 'closed to' : 'open for'} others who reach it`, {
    skip: skipWithoutTar,
  }, async (t) => {
    const { store, diffIds, directory } = await prepare(t, ROOT, entry);
    const closed = join(directory, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    const empty = join(directory, 'empty');
    makeTheirs(empty);
    const seen: unknown[] = [];
    for (const path of [join(directory, 'new'), empty, join(closed, 'new')]) {
      const warnings: ExportEvent[] = [];
      const onEvent = (event: ExportEvent) => event.event === 'warning' && warnings.push(event);
      await exportRootfs({ store, diffIds, directory: path, onEvent });
      const { uid, mode, mtimeMs } = statSync(path);
      seen.push([uid, (mode & 0o7777).toString(8), mtimeMs, warnings.length]);
    }
    const asStated = [12, '751', 7000, 0];
    const expected = isClosed ? [0, '700', 7000, 1] : asStated;
    assert.deepEqual(seen, [expected, expected, asStated]);
  });
}

test('--force into a directory that is there gives it what the image says', {
  skip: skipWithoutTar,
}, async (t) => {
  const { store, diffIds, directory, theirs } = await prepare(t, ROOT, SET_USER_ID, DEVICE);
  for (const path of [theirs, theirs, join(directory, 'new')])
    await exportRootfs({ store, diffIds, directory: path, force: true });
  assert.deepEqual(
    [theirs, join(directory, 'new')].map((path) => (statSync(path).mode & 0o7777).toString(8)),
    ['751', '700'],
  );
});

test('a root that no layer states is closed as well, and otherwise what it was', { skip }, async (t) => {
  for (const [entry, uid, mode] of [
    [SET_USER_ID, 0, '700'],
    [{ name: 'ls' }, MALLORY, '755'],
  ] as const) {
    const { store, diffIds, theirs } = await prepare(t, entry);
    await exportRootfs({ store, diffIds, directory: theirs });
    const stat = statSync(theirs);
    assert.deepEqual([stat.uid, (stat.mode & 0o7777).toString(8)], [uid, mode]);
  }
});

test('an export that fails gives an empty directory back as it was', { skip }, async (t) => {
  const { store, diffIds, theirs } = await prepare(t, ...ENTRIES);
  const controller = new AbortController();
  const onEvent = ({ event }: ExportEvent) => event === 'exporting' && controller.abort(new Error('enough'));
  const exporting = exportRootfs({ store, diffIds, directory: theirs, signal: controller.signal, onEvent });
  await assert.rejects(exporting, { code: 'interrupted' });
  const { uid, mode } = statSync(theirs);
  assert.deepEqual([uid, (mode & 0o7777).toString(8), readdirSync(theirs)], [MALLORY, '755', []]);
});
