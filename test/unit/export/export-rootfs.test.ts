import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ExportEvent } from '../../../src/api/export.js';
import { exportRootfs, exportTar } from '../../../src/export/export-files.js';
import { exportLayers } from '../../../src/export/export-layers.js';
import { formatBytes } from '../../../src/format/figures.js';
import { paxRecord } from '../../../src/format/tar-writer.js';
import { setEnvironment } from '../../support/environment.js';
import { listDirectory, listTar } from '../../support/listing.js';
import { flipByte } from '../../support/packs.js';
import { skipUnless } from '../../support/programs.js';
import { ENDLESS_BYTES, type Entry, storeEndlessLayer, storeTars, tarOf } from '../../support/tars.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { freshStore } from '../store/support.js';

const LARGE = Buffer.alloc(20 * 2 ** 20 + 7, 'a large file');
const isRoot = process.getuid?.() === 0;
const rootWithTar = skipUnless('tar') || (isRoot ? false : 'needs root');

/** A store with these layers, and a directory `out` in a directory of its own that is not there yet. */
async function prepare(t: TestContext, ...layers: readonly Entry[][]) {
  const paths = freshStore(t);
  const stored = await storeTars(paths, ...layers.map((entries) => tarOf(...entries)));
  const outside = temporaryDirectory(t);
  return { store: paths.root, outside, directory: join(outside, 'out'), ...stored };
}

async function failure(exporting: Promise<void>): Promise<{ code: string; message: string }> {
  const outcome = await exporting.then(
    () => undefined,
    (error: { code: string; message: string }) => error,
  );
  assert.ok(outcome !== undefined, 'it should have failed');
  return outcome;
}

test('files, links and directories are what the layers say, down to the microsecond', async (t) => {
  const { store, diffIds, directory } = await prepare(t, [
    { name: './', type: '5', mode: 0o711, mtimeSeconds: 1_600_000_000 },
    { name: 'large', content: LARGE, mode: 0o4666 },
    { name: 'closed', type: '5', mode: 0o555, mtimeSeconds: 7 },
    { name: 'closed/file', mode: 0o400, content: 'x', mtimeSeconds: 1_700_000_001, mtimeNanos: 123_456_789 },
    { name: 'closed/old', mtimeSeconds: -86_400 },
    { name: 'closed/soft', type: '2', linkName: '/nowhere', mtimeSeconds: 99 },
    { name: 'hard', type: '1', linkName: 'large' },
    { name: Buffer.from('caf\xe9', 'latin1'), content: 'latin1' },
  ]);
  await exportRootfs({ store, diffIds, directory });
  assert.ok(readFileSync(join(directory, 'large')).equals(LARGE));
  const modeOf = (name: string) => (lstatSync(join(directory, name)).mode & 0o7777).toString(8);
  assert.deepEqual(['', 'large', 'closed', 'closed/file'].map(modeOf), [
    '711',
    isRoot ? '4666' : '666',
    '555',
    '400',
  ]);
  const timeOf = (name: string) => lstatSync(join(directory, name), { bigint: true }).mtimeNs / 1000n;
  assert.deepEqual(['', 'closed', 'closed/file', 'closed/old', 'closed/soft'].map(timeOf), [
    1_600_000_000_000_000n,
    7_000_000n,
    1_700_000_001_123_456n,
    -86_400_000_000n,
    99_000_000n,
  ]);
  assert.equal(readlinkSync(join(directory, 'closed/soft')), '/nowhere');
  assert.equal(statSync(join(directory, 'hard')).ino, statSync(join(directory, 'large')).ino);
  const names = readdirSync(directory, { encoding: 'buffer' }).map((name) => name.toString('latin1'));
  assert.deepEqual(names.sort(), ['caf\xe9', 'closed', 'hard', 'large']);
});

test('owners, devices, fifos and extended attributes are there when root exports', {
  skip: rootWithTar,
}, async (t) => {
  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
  const xattr = (name: string, value: Buffer | string) => paxRecord(`SCHILY.xattr.${name}`, value);
  const entries: Entry[] = [
    { name: 'dir', type: '5', uid: 12, gid: 13, records: xattr('user.dir', 'of a directory') },
    { name: 'dir/null', type: '3', devMajor: 1, devMinor: 3, mode: 0o666 },
    { name: 'dir/pipe', type: '6', uid: 5 },
    { name: 'ping', content: LARGE, mode: 0o755, records: xattr('security.capability', capability) },
    { name: 'two', type: '1', linkName: 'ping' },
    { name: 'user', content: 'x', uid: 4_000_000_000, gid: 3_000_000_000, records: xattr('user.x', 'a\0b') },
  ];
  const { store, diffIds, directory } = await prepare(t, entries);
  const events: ExportEvent[] = [];
  await exportRootfs({ store, diffIds, directory, onEvent: (event) => events.push(event) });
  // A hard link is listed with what its file has.
  const [link, ...others] = [entries[4]!, ...entries.filter((_, row) => row !== 4)];
  const expected = listTar(tarOf(...others, { ...link!, mode: 0o755 }));
  const withoutAttributes = (line: string) => line.replace(/(\| 1 \|.*\| ).*$/, '$1');
  assert.deepEqual(listDirectory(directory).map(withoutAttributes), expected.map(withoutAttributes));
  assert.deepEqual(
    events.filter(({ event }) => event === 'warning'),
    [],
  );
});

test('a symbolic link of a lower layer that points outside leads nowhere outside', async (t) => {
  const { store, diffIds, directory, outside } = await prepare(
    t,
    [
      { name: 'abs', type: '2', linkName: '/' },
      { name: 'up', type: '2', linkName: '../../..' },
      { name: 'dir', type: '5' },
      { name: 'dir/up', type: '2', linkName: '../..' },
    ],
    [
      { name: 'abs/one', content: '1' },
      { name: 'up/two', content: '2' },
      { name: 'dir/up/three', content: '3' },
      { name: 'abs', type: '5' },
      { name: 'abs/four', content: '4' },
    ],
  );
  await exportRootfs({ store, diffIds, directory });
  assert.deepEqual(readdirSync(outside), ['out']);
  assert.deepEqual(readdirSync(directory).sort(), ['abs', 'dir', 'one', 'three', 'two', 'up']);
  assert.deepEqual(readdirSync(join(directory, 'abs')), ['four']);
});

test('absolute names and names with .. stay inside', async (t) => {
  const { store, diffIds, directory, outside } = await prepare(t, [
    { name: '/abs', content: '1' },
    { name: '../up', content: '2' },
    { name: 'a/../../../../b', content: '3' },
    { name: '..', type: '5', mode: 0o700 },
    { name: '../../.wh.out' },
  ]);
  await exportRootfs({ store, diffIds, directory });
  assert.deepEqual(readdirSync(outside), ['out']);
  assert.deepEqual(readdirSync(directory).sort(), ['abs', 'b', 'up']);
});

test('a hard link to a file outside is refused, and nothing is left of the export', async (t) => {
  for (const target of ['/etc/hostname', '../secret', 'link/secret']) {
    const { store, diffIds, directory, outside } = await prepare(t, [
      { name: 'link', type: '2', linkName: '..' },
      { name: 'hard', type: '1', linkName: target },
    ]);
    writeFileSync(join(outside, 'secret'), 'of the host');
    const { code } = await failure(exportRootfs({ store, diffIds, directory }));
    assert.equal(code, 'metadata-malformed');
    assert.deepEqual(readdirSync(outside), ['secret']);
  }
});

test('a directory that is not empty is refused, unless --force: then what has the same names goes', async (t) => {
  const { store, diffIds, directory, outside } = await prepare(t, [
    { name: 'etc', type: '5' },
    { name: 'etc/new', content: 'new' },
    { name: 'file', content: 'from the image' },
    { name: 'was-directory', content: '' },
    { name: 'was-link', type: '5' },
    { name: 'was-link/inside', content: '' },
    { name: 'soft', type: '2', linkName: 'file' },
    { name: 'hard', type: '1', linkName: 'file' },
  ]);
  mkdirSync(join(directory, 'etc'), { recursive: true });
  mkdirSync(join(directory, 'was-directory', 'deep'), { recursive: true });
  mkdirSync(join(outside, 'host'));
  writeFileSync(join(outside, 'host', 'secret'), 'of the host');
  writeFileSync(join(directory, 'etc', 'kept'), 'kept');
  symlinkSync('../host', join(directory, 'was-link'));
  for (const name of ['file', 'soft', 'hard']) symlinkSync('../host/secret', join(directory, name));
  const before = readdirSync(directory);
  const { code } = await failure(exportRootfs({ store, diffIds, directory }));
  assert.equal(code, 'option-malformed');
  assert.deepEqual(readdirSync(directory), before);
  await exportRootfs({ store, diffIds, directory, force: true });
  assert.deepEqual(readdirSync(join(outside, 'host')), ['secret']);
  assert.equal(readFileSync(join(outside, 'host', 'secret'), 'utf8'), 'of the host');
  assert.deepEqual(readdirSync(join(directory, 'etc')).sort(), ['kept', 'new']);
  assert.equal(readFileSync(join(directory, 'hard'), 'utf8'), 'from the image');
  assert.deepEqual(readdirSync(join(directory, 'was-link')), ['inside']);
  assert.deepEqual(
    [readlinkSync(join(directory, 'soft')), lstatSync(join(directory, 'was-directory')).isFile()],
    ['file', true],
  );
});

test('a hard link to a symbolic link is one to the link, wherever that points', async (t) => {
  const { store, diffIds, directory, outside } = await prepare(t, [
    { name: 'soft', type: '2', linkName: '../secret' },
    { name: 'hard', type: '1', linkName: 'soft' },
  ]);
  writeFileSync(join(outside, 'secret'), 'of the host');
  await exportRootfs({ store, diffIds, directory });
  assert.equal(readlinkSync(join(directory, 'hard')), '../secret');
  assert.equal(statSync(join(outside, 'secret')).nlink, 1);
});

test('with --force nothing is followed that stands where tar is to make something', {
  skip: rootWithTar,
}, async (t) => {
  const records = paxRecord('SCHILY.xattr.user.x', 'y');
  const { store, diffIds, directory, outside } = await prepare(t, [
    { name: 'file', content: 'from the image', records },
    { name: 'over-full', content: 'from the image', records },
    { name: 'dir', type: '5', records },
    { name: 'dir/inside', content: 'from the image' },
    { name: 'null', type: '3', devMajor: 1, devMinor: 3 },
    { name: 'pipe', type: '6' },
  ]);
  mkdirSync(join(outside, 'host'));
  writeFileSync(join(outside, 'host', 'secret'), 'of the host');
  mkdirSync(join(directory, 'over-full', 'deep'), { recursive: true });
  mkdirSync(join(directory, 'pipe', 'deep'), { recursive: true });
  symlinkSync('../host/secret', join(directory, 'file'));
  symlinkSync('../host', join(directory, 'dir'));
  symlinkSync('../host/secret', join(directory, 'null'));
  const events: ExportEvent[] = [];
  await exportRootfs({ store, diffIds, directory, force: true, onEvent: (event) => events.push(event) });
  const warnings = events.filter(({ event }) => event === 'warning');
  assert.deepEqual([warnings, readdirSync(join(outside, 'host'))], [[], ['secret']]);
  assert.equal(readFileSync(join(outside, 'host', 'secret'), 'utf8'), 'of the host');
  const kind = (name: string) => {
    const stat = lstatSync(join(directory, name));
    return [stat.isFile(), stat.isDirectory(), stat.isCharacterDevice(), stat.isFIFO()].indexOf(true);
  };
  assert.deepEqual(['file', 'over-full', 'dir', 'null', 'pipe'].map(kind), [0, 0, 1, 2, 3]);
});

test('with --force pipes and devices go where the image has directories and files', {
  skip: skipUnless('mkfifo', 'mknod'),
}, async (t) => {
  const { store, diffIds, directory } = await prepare(t, [
    { name: 'dir/inside', content: 'from the image' },
    { name: 'device/inside', content: 'from the image' },
    { name: 'file', content: 'from the image' },
  ]);
  mkdirSync(directory);
  for (const name of ['dir', 'file']) execFileSync('mkfifo', [join(directory, name)]);
  if (isRoot) execFileSync('mknod', [join(directory, 'device'), 'c', '1', '3']);
  await exportRootfs({ store, diffIds, directory, force: true });
  for (const name of ['dir/inside', 'device/inside', 'file']) {
    assert.equal(readFileSync(join(directory, name), 'utf8'), 'from the image');
  }
});

test('an export of damaged bytes leaves no directory, and an empty one empty', async (t) => {
  for (const isThere of [false, true]) {
    const { store, diffIds, directory, outside, packs } = await prepare(t, [{ name: 'a/b', content: LARGE }]);
    if (isThere) mkdirSync(directory);
    flipByte(packs[1]!, 1000);
    const { code, message } = await failure(exportRootfs({ store, diffIds, directory }));
    assert.deepEqual([code, message.endsWith(' is damaged in the store, in a/b')], ['digest-mismatch', true]);
    assert.deepEqual(readdirSync(isThere ? directory : outside), []);
  }
});

test('an export that is aborted ends with the reason and leaves nothing', async (t) => {
  const { store, diffIds, directory, outside } = await prepare(t, [{ name: 'a/b', content: LARGE }]);
  const controller = new AbortController();
  const reason = new Error('enough');
  const onEvent = ({ event }: ExportEvent) => {
    if (event === 'exporting') controller.abort(reason);
  };
  const exporting = exportRootfs({ store, diffIds, directory, signal: controller.signal, onEvent });
  await assert.rejects(exporting, { code: 'interrupted', cause: reason });
  assert.deepEqual(readdirSync(outside), []);
});

test('a disk without room is refused with the bytes that are missing, and nothing is left', async (t) => {
  const paths = freshStore(t);
  const { diffId, guard } = await storeEndlessLayer(paths);
  const outside = temporaryDirectory(t);
  const [absent, empty] = ['absent', 'empty'].map((name) => join(outside, name)) as [string, string];
  mkdirSync(empty);
  for (const [directory, asked] of [
    [absent, outside],
    [empty, empty],
  ] as const) {
    const exporting = exportRootfs({ ...guard, store: paths.root, diffIds: [diffId], directory });
    const { code, message } = await failure(exporting);
    assert.deepEqual(
      [code, message.startsWith(`${asked} needs ${formatBytes(ENDLESS_BYTES)} and has `)],
      ['store-full', true],
    );
  }
  assert.deepEqual([readdirSync(outside), readdirSync(empty)], [['empty'], []]);
});

test('into a full directory nothing is written before all layers are proven', async (t) => {
  const { store, diffIds, directory, packs } = await prepare(t, [
    { name: 'a/b', content: 'from the image' },
    { name: 'a/new', content: LARGE },
    { name: 'kept', type: '5' },
  ]);
  mkdirSync(join(directory, 'a'), { recursive: true });
  writeFileSync(join(directory, 'a', 'b'), 'from before');
  writeFileSync(join(directory, 'kept'), 'from before');
  flipByte(packs[1]!, 10 * 2 ** 20);
  const { code } = await failure(exportRootfs({ store, diffIds, directory, force: true }));
  assert.equal(code, 'digest-mismatch');
  assert.deepEqual([readdirSync(directory), readdirSync(join(directory, 'a'))], [['a', 'kept'], ['b']]);
  for (const name of ['a/b', 'kept'])
    assert.equal(readFileSync(join(directory, name), 'utf8'), 'from before');
});

test('an image of nothing is an empty directory, made with its parents', async (t) => {
  const { store, outside } = await prepare(t);
  const directory = join(outside, 'not', 'yet');
  await exportRootfs({ store, diffIds: [], directory });
  assert.deepEqual([readdirSync(directory), lstatSync(directory).mode & 0o777], [[], 0o755]);
});

test('a destination that cannot be is the reason given', async (t) => {
  const { store, diffIds, outside } = await prepare(t, [{ name: 'a' }]);
  writeFileSync(join(outside, 'file'), '');
  chmodSync(outside, 0o755);
  for (const directory of [join(outside, 'file'), join(outside, 'file', 'below')]) {
    const { message } = await failure(exportRootfs({ store, diffIds, directory }));
    assert.match(message, /file/);
  }
  assert.equal(existsSync(join(outside, 'file')), true);
});

test('a path that leads through a file is refused by name', async (t) => {
  const { store, diffIds, outside } = await prepare(t, [{ name: 'a' }]);
  const directory = join(outside, 'file', 'under-it');
  writeFileSync(join(outside, 'file'), '');
  for (const exporting of [
    () => exportRootfs({ store, diffIds, directory }),
    () => exportTar({ store, diffIds, file: directory }).then(() => {}),
    () => exportLayers({ store, diffIds, directory }).then(() => {}),
  ]) {
    const { code, message } = await failure(exporting());
    assert.deepEqual(
      [code, message.includes('a part of the path is not a directory')],
      ['store-broken', true],
      message,
    );
  }
});

test('a tar that cannot be started ends the export with an error of the file system', {
  skip: skipUnless('sh'),
}, async (t) => {
  const { store, diffIds, directory, outside } = await prepare(t, [{ name: 'pipe', type: '6' }]);
  const tar = join(outside, 'tar');
  const script = `#!/bin/sh\necho 'tar (GNU tar) 1.35'\n/bin/rm '${tar}'\n`;
  writeFileSync(tar, script, { mode: 0o755 });
  setEnvironment(t, { PATH: outside });
  const { code, message } = await failure(exportRootfs({ store, diffIds, directory }));
  assert.equal(code, 'store-broken');
  assert.match(message, /could not start tar: .*ENOENT/);
  assert.deepEqual(readdirSync(outside), []);
});

test('root without CAP_CHOWN exports as another user does, with one warning', {
  skip: skipUnless('setpriv') || (isRoot ? false : 'needs root'),
}, async (t) => {
  const { store, diffIds, directory } = await prepare(t, [
    { name: 'theirs', content: 'x', uid: 7, gid: 8, mode: 0o4755 },
    { name: 'group', content: 'y', uid: 0, gid: 8, mode: 0o2755 },
  ]);
  const module = new URL('../../../src/export/export-files.js', import.meta.url).href;
  const script = `
    const { exportRootfs } = await import(${JSON.stringify(module)});
    const onEvent = (event) => event.event === 'warning' && console.log(event.message);
    await exportRootfs({ ...${JSON.stringify({ store, diffIds, directory })}, onEvent });`;
  const node = [process.execPath, '--input-type=module', '-e', script];
  const options = ['--bounding-set', '-chown', '--inh-caps', '-chown'];
  const warnings = execFileSync('setpriv', [...options, ...node], { encoding: 'utf8' });
  assert.equal(
    warnings,
    'left out without the capability CAP_CHOWN: owners of 1, set-user-ID or set-group-ID of 2\n',
  );
  for (const name of ['theirs', 'group']) {
    const { uid, gid, mode } = statSync(join(directory, name));
    assert.deepEqual({ uid, gid, mode: mode & 0o7777 }, { uid: 0, gid: 0, mode: 0o755 });
  }
});
