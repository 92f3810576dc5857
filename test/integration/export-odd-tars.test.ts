import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ExportEvent, exportRootfs, exportTar } from '../../src/api/export.js';
import { paxRecord } from '../../src/format/tar-writer.js';
import { SAMPLE_FORMATS } from '../support/layers/sample-image.js';
import {
  type DescriptorJson,
  emptyLayout,
  nameImage,
  readConfig,
  readManifest,
  writeTars,
} from '../support/layout.js';
import { listDirectory } from '../support/listing.js';
import { skipUnless } from '../support/programs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Entry, storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { freshStore } from '../unit/store/support.js';

/** Files with holes at all places, one of nothing else, and one with more runs than a header has. */
function sparseFiles(directory: string): readonly string[] {
  const files: Readonly<Record<string, readonly number[]>> = {
    begin: [100_000],
    end: [0],
    hole: [],
    many: Array.from({ length: 12 }, (_, at) => at * 24_576),
  };
  mkdirSync(directory);
  for (const [name, places] of Object.entries(files)) {
    const fd = openSync(join(directory, name), 'w');
    for (const [at, place] of places.entries()) writeSync(fd, Buffer.alloc(1000, at + 1), 0, 1000, place);
    closeSync(fd);
    truncateSync(join(directory, name), name === 'begin' ? 101_000 : 300_000);
  }
  writeFileSync(join(directory, 'whole'), 'no hole');
  return Object.keys(files);
}

const SPARSE_FORMATS = [
  '--format=gnu',
  ...['0.0', '0.1', '1.0'].map((version) => `--format=pax --sparse-version=${version}`),
] as const;

function sparseTar(directory: string, format: string, ...more: readonly string[]): Buffer {
  const options = ['-cSf', '-', ...format.split(' '), '--mtime=@1700000000', '-C', directory, ...more];
  return execFileSync('tar', [...options, 'begin', 'end', 'hole', 'many', 'whole'], { maxBuffer: 2 ** 24 });
}

/** Whether a file takes less room than it has bytes. */
function hasHoles(path: string): boolean {
  const { blocks, size } = lstatSync(path);
  return blocks * 512 < size / 2;
}

/** An image with these files in a layer of every format, each in a directory of its own and in one of GNU tar's formats. */
async function sparseImage(t: TestContext, source: string): Promise<string> {
  const layout = emptyLayout(t);
  const layers: DescriptorJson[] = [];
  const diffIds: string[] = [];
  for (const [at, format] of SAMPLE_FORMATS.entries()) {
    // Writers of a table of contents know no type of old GNU tar.
    const isOneStream = ['gzip', 'zstd', 'tar'].includes(format);
    const tar = sparseTar(source, SPARSE_FORMATS[isOneStream ? 0 : 1 + (at % 3)]!, `--transform=s,^,${at}/,`);
    await writeTars(t, layout, 'one', [tar], format);
    const manifest = readManifest(layout, 'one');
    layers.push(...manifest.layers);
    diffIds.push(...readConfig(layout, manifest).rootfs.diff_ids);
  }
  nameImage(layout, 'all', layers, diffIds);
  const { host } = await startSandbox(t, { layout });
  return `${host}/x:all`;
}

test('sparse files of every format keep their holes by every format of a layer, as files and in a tar', {
  skip: skipUnless('tar'),
}, async (t) => {
  const directory = temporaryDirectory(t);
  const source = join(directory, 'source');
  const names = sparseFiles(source);
  const store = join(directory, 'store');
  const { result, events } = await pull(await sparseImage(t, source), { store });
  assert.deepEqual(
    events.filter(({ event }) => event === 'warning'),
    [],
  );
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const [rootfs, file, unpacked] = ['rootfs', 'all.tar', 'unpacked'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await exportRootfs({ store, diffIds, directory: rootfs });
  await exportTar({ store, diffIds, file });
  mkdirSync(unpacked);
  execFileSync('tar', ['-xpf', file, '-C', unpacked]);
  for (const made of [rootfs, unpacked])
    for (const at of SAMPLE_FORMATS.keys()) {
      for (const name of [...names, 'whole'])
        assert.ok(readFileSync(join(made, String(at), name)).equals(readFileSync(join(source, name))));
      assert.ok(names.every((name) => hasHoles(join(made, String(at), name))));
    }
  assert.deepEqual(listDirectory(rootfs), listDirectory(unpacked));
  assert.ok(lstatSync(file).size < SAMPLE_FORMATS.length * 100_000);
});

test('a sparse file of 4 TiB costs what its data costs', async (t) => {
  const records = (bytes: number) =>
    Buffer.concat([
      paxRecord('GNU.sparse.map', `0,1,${bytes - 1},1`),
      paxRecord('GNU.sparse.size', String(bytes)),
    ]);
  const paths = freshStore(t);
  // Not every file system takes one of 16 TiB.
  const fileBytes = 2 ** 42;
  const { diffIds } = await storeTars(
    paths,
    tarOf({ name: 'huge', content: 'ab', records: records(fileBytes) }),
  );
  const directory = join(temporaryDirectory(t), 'out');
  const totals: number[] = [];
  const onEvent = (event: ExportEvent) => void (event.event === 'exporting' && totals.push(event.totalBytes));
  await exportRootfs({ store: paths.root, diffIds, directory, onEvent });
  const file = join(directory, '..', 'out.tar');
  await exportTar({ store: paths.root, diffIds, file, onEvent });
  const { size, blocks } = lstatSync(join(directory, 'huge'));
  assert.deepEqual(
    [size, blocks < 100, lstatSync(file).size < 5000, totals],
    [fileBytes, true, true, [2, 2]],
  );
});

test('times are exact to the microsecond, of files, directories and links, whatever their fraction', async (t) => {
  const fractions = [0, 1, 123_456_000, 123_456_789, 500_000, 999_999_000, 999_999_999, 1000, 999];
  const seconds = [1_700_000_001, 1, 0, -1, -86_400, -2_000_000_001, 2 ** 32 + 1];
  const times = seconds.flatMap((mtimeSeconds) =>
    fractions.map((mtimeNanos) => ({ mtimeSeconds, mtimeNanos })),
  );
  const paths = freshStore(t);
  const entries = times.flatMap((time, at): Entry[] => [
    { name: `f${at}`, ...time },
    { name: `d${at}`, type: '5', ...time },
    { name: `l${at}`, type: '2', linkName: 'f0', ...time },
  ]);
  const { diffIds } = await storeTars(paths, tarOf(...entries));
  const directory = join(temporaryDirectory(t), 'out');
  await exportRootfs({ store: paths.root, diffIds, directory });
  for (const [at, { mtimeSeconds, mtimeNanos }] of times.entries())
    for (const kind of ['f', 'd', 'l']) {
      const { mtimeNs } = lstatSync(join(directory, `${kind}${at}`), { bigint: true });
      const expected = BigInt(mtimeSeconds) * 1_000_000n + BigInt(Math.floor(mtimeNanos / 1000));
      assert.equal(mtimeNs, expected * 1000n, `${kind} ${mtimeSeconds} ${mtimeNanos}`);
    }
});

/** Runs a script in which root of a user namespace exports; nobody else is mapped. */
function exportInNamespace(options: object): string[] {
  const script = `
    const { exportRootfs } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/api/export.js'))});
    const onEvent = ({ event, message }) => event === 'warning' && console.log(message);
    await exportRootfs({ ...${JSON.stringify(options)}, onEvent });`;
  const node = [...process.execArgv, '--input-type=module', '-e', script];
  const told = execFileSync('unshare', ['-Ur', process.execPath, ...node], { encoding: 'utf8' });
  return told.split('\n').slice(0, -1);
}

function canUnshare(): boolean {
  return spawnSync('unshare', ['-Ur', 'true']).status === 0;
}

test('a warning of the program tar names the path in the image', { skip: skipUnless('tar') }, async (t) => {
  const records = paxRecord(`SCHILY.xattr.user.${'n'.repeat(300)}`, 'y');
  const paths = freshStore(t);
  const { diffIds } = await storeTars(paths, tarOf({ name: 'dir/file', content: 'x', records }));
  const told: string[] = [];
  const onEvent = (event: ExportEvent) => {
    if (event.event === 'warning') told.push(event.message);
  };
  await exportRootfs({ store: paths.root, diffIds, directory: join(temporaryDirectory(t), 'out'), onEvent });
  assert.match(told.join(), /^tar: .*dir\/file/);
  assert.doesNotMatch(told.join(), /\/proc\//);
});

test('in a user namespace an export goes on with the IDs that are mapped, and one warning', {
  skip: skipUnless('tar') || skipUnless('unshare') || (canUnshare() ? false : 'no user namespaces'),
}, async (t) => {
  const user = paxRecord('SCHILY.xattr.user.x', 'y');
  const paths = freshStore(t);
  const { diffIds } = await storeTars(
    paths,
    tarOf(
      { name: './', type: '5', uid: 3 },
      { name: 'mapped', content: 'x' },
      { name: 'group', content: 'x', gid: 50 },
      { name: 'program', content: 'x', uid: 7, mode: 0o6755 },
      { name: 'attributes', content: 'x', uid: 7, gid: 50, mode: 0o4755, records: user },
      { name: 'link', type: '2', linkName: 'group', gid: 50 },
      { name: 'dir', type: '5', uid: 50, gid: 50, mode: 0o2775 },
      { name: 'dir/null', type: '3', devMajor: 1, devMinor: 3 },
    ),
  );
  const directory = join(temporaryDirectory(t), 'out');
  assert.deepEqual(exportInNamespace({ store: paths.root, diffIds, directory }), [
    'left out in a user namespace: owners of 6 whose IDs are not mapped, set-user-ID or set-group-ID of 3, devices: 1',
  ]);
  const own = [process.getuid?.(), process.getgid?.()];
  const seen = ['mapped', 'group', 'program', 'attributes', 'link', 'dir', '.'].map((name) => {
    const { uid, gid, mode } = lstatSync(join(directory, name));
    return [name, (mode & 0o7777).toString(8), uid === own[0] && gid === own[1]];
  });
  assert.deepEqual(seen, [
    ['mapped', '644', true],
    ['group', '644', true],
    ['program', '755', true],
    ['attributes', '755', true],
    ['link', '777', true],
    ['dir', '775', true],
    ['.', '755', true],
  ]);
  assert.deepEqual(readdirSync(directory).length, 6);
});
