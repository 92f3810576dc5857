import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type ExportEvent,
  exportDockerArchive,
  exportLayers,
  exportRootfs,
  exportTar,
} from '../../src/api/export.js';
import { paxRecord, TAR_END } from '../../src/format/tar-writer.js';
import { openBlob } from '../../src/sandbox/image-writer.js';
import { emptyLayout, nameImage } from '../support/layout.js';
import { applyLayers, assertSameTree, listDirectory, listTar } from '../support/listing.js';
import { skipUnless, skipUnlessThere } from '../support/programs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Entry, editedHeader, storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { freshStore } from '../unit/store/support.js';

const isRoot = process.getuid?.() === 0;
const skip = skipUnless('tar') || (isRoot ? false : 'devices and owners need root');

/** An image of the fixture layout in a store, and the file system that GNU tar makes of its layers. */
async function prepare(t: TestContext, tag: string) {
  const registry = await startSandbox(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const { result } = await pull(`${registry.host}/a:${tag}`, { store, platform: 'linux/amd64' });
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const tars = await exportLayers({ store, diffIds, directory: join(directory, 'layers') });
  const expected = join(directory, 'expected');
  applyLayers(tars, expected);
  return { store, diffIds, tars, directory, expected: listDirectory(expected) };
}

for (const tag of ['chunked-v1', 'chunked-v2']) {
  test(`the tar of ${tag} holds what tar -x makes of its layers, and unpacks to it`, { skip }, async (t) => {
    const startedMs = Date.now();
    const { store, diffIds, directory, expected } = await prepare(t, tag);
    const file = join(directory, 'all.tar');
    await exportTar({ store, diffIds, file });
    const unpacked = join(directory, 'unpacked');
    mkdirSync(unpacked);
    execFileSync('tar', ['-xpf', file, '-C', unpacked, '--xattrs', '--xattrs-include=*', '--numeric-owner']);
    assert.ok(expected.length > 50);
    assertSameTree(listDirectory(unpacked), expected, startedMs);
    const listed = listTar(readFileSync(file)).filter((line) => !line.startsWith(' | '));
    assert.equal(listed.length, expected.length);
  });
}

/** A directory that no layer states: crane leaves it out. */
const IMPLIED = /\| 5 \| 755 \| 0:0 \| 0\.000000 \|/;

test('the tar is what crane exports', { skip: skipUnlessThere('crane') }, async (t) => {
  const registry = await startSandbox(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const reference = `${registry.host}/a:chunked-v2`;
  const { result } = await pull(reference, { store, platform: 'linux/amd64' });
  const [docker, file] = [join(directory, 'docker.tar'), join(directory, 'all.tar')];
  await exportDockerArchive({ store, digest: result.digest, reference, file: docker });
  await exportTar({ store, diffIds: result.layers.map(({ diffId }) => diffId), file });
  const exported = execFileSync('crane', ['export', '-', '-'], {
    input: readFileSync(docker),
    maxBuffer: 64 * 2 ** 20,
  });
  // What the header of a hard link says of mode and owner, nobody applies.
  const comparable = (tar: Buffer) =>
    listTar(tar).map((line) => line.replace(/\| 1 \| \d+ \| \d+:\d+/, '| 1'));
  const theirs = new Set(comparable(exported));
  const ours = comparable(readFileSync(file)).filter((line) => theirs.has(line) || !IMPLIED.test(line));
  assert.deepEqual(ours, [...theirs]);
});

for (const tag of ['chunked-v1', 'chunked-v2']) {
  test(`the root file system of ${tag} is what tar -x makes of its layers`, { skip }, async (t) => {
    const startedMs = Date.now();
    const { store, diffIds, directory, expected } = await prepare(t, tag);
    const rootfs = join(directory, 'rootfs');
    const events: ExportEvent[] = [];
    await exportRootfs({ store, diffIds, directory: rootfs, onEvent: (event) => events.push(event) });
    assertSameTree(listDirectory(rootfs), expected, startedMs);
    assert.deepEqual(
      events.filter(({ event }) => event === 'warning'),
      [],
    );
  });
}

/** An OCI layout with the layers as plain tars, which every program reads. */
function plainLayout(t: TestContext, tars: readonly string[], diffIds: readonly string[]): string {
  const layout = emptyLayout(t);
  const layers = tars.map((tar) => {
    const blob = openBlob(layout);
    blob.write(readFileSync(tar));
    const { digest, sizeBytes } = blob.finish();
    return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: sizeBytes };
  });
  nameImage(layout, 'plain', layers, diffIds);
  return layout;
}

test('the root file system is what umoci unpacks', { skip: skipUnless('umoci') || skip }, async (t) => {
  const startedMs = Date.now();
  const { store, diffIds, tars, directory } = await prepare(t, 'chunked-v2');
  const bundle = join(directory, 'bundle');
  execFileSync('umoci', ['unpack', '--image', `${plainLayout(t, tars, diffIds)}:plain`, bundle], {
    stdio: 'pipe',
  });
  const rootfs = join(directory, 'rootfs');
  await exportRootfs({ store, diffIds, directory: rootfs });
  assertSameTree(listDirectory(rootfs), listDirectory(join(bundle, 'rootfs')), startedMs);
});

/** Layers with what images of the last ten years have: each entry as umoci takes it, too. */
function oddLayers(directory: string): Buffer[] {
  const goHeader = editedHeader(tarOf({ name: 'old-go' }).subarray(0, 512), {
    257: 'ustar  \0',
    345: 'a/long/way',
  });
  mkdirSync(directory);
  writeFileSync(join(directory, 'sparse'), 'data');
  truncateSync(join(directory, 'sparse'), 1_000_000);
  const sparse = execFileSync('tar', ['-cSf', '-', '--format=pax', '-C', directory, 'sparse']);
  return [
    tarOf(
      { name: 'target', type: '5' },
      { name: 'target/keep', content: 'kept' },
      { name: 'target/gone', content: 'gone' },
      { name: 'opaque', type: '2', linkName: '/target' },
      { name: 'plain', type: '2', linkName: 'target' },
      { name: 'through', type: '2', linkName: 'target' },
      { name: 'file', content: 'x', mtimeNanos: 123_456_789 },
      { name: 'hard', type: '1', linkName: 'file', mode: 0o600, uid: 5 },
      { name: 'missing/parents/file', content: 'x' },
      {
        name: 'nobody',
        content: 'x',
        records: Buffer.concat([paxRecord('uid', '-2'), paxRecord('gid', '4294967303')]),
      },
      { name: 'late', content: 'x', mtimeSeconds: 1_700_000_000, mtimeNanos: 999_999_999 },
      { name: 'early', content: 'x', mtimeSeconds: -2, mtimeNanos: 999_999_999 },
    ),
    tarOf(
      { name: 'opaque', type: '5' },
      { name: 'opaque/.wh..wh..opq' },
      { name: 'opaque/new', content: 'new' },
      { name: 'plain', type: '5' },
      { name: 'plain/.wh.keep' },
      { name: 'through/.wh.gone' },
    ),
    Buffer.concat([goHeader, TAR_END]),
    sparse,
  ];
}

test('odd layers make what umoci makes of them', { skip: skipUnless('umoci') || skip }, async (t) => {
  const startedMs = Date.now();
  const directory = temporaryDirectory(t);
  const paths = freshStore(t);
  const layers = oddLayers(join(directory, 'source'));
  const { diffIds } = await storeTars(paths, ...layers);
  const tars = await exportLayers({ store: paths.root, diffIds, directory: join(directory, 'layers') });
  const bundle = join(directory, 'bundle');
  execFileSync('umoci', ['unpack', '--image', `${plainLayout(t, tars, diffIds)}:plain`, bundle], {
    stdio: 'pipe',
  });
  const rootfs = join(directory, 'rootfs');
  await exportRootfs({ store: paths.root, diffIds, directory: rootfs });
  assertSameTree(listDirectory(rootfs), listDirectory(join(bundle, 'rootfs')), startedMs);
});

/** This machine's `echo` and the libraries it is linked with, as entries of a layer. */
function echoProgram(): Entry[] {
  const libraries = execFileSync('ldd', ['/bin/echo'], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
  return ['/bin/echo', ...libraries].map((name) => ({ name, mode: 0o755, content: readFileSync(name) }));
}

test('runc runs a program in the root file system', {
  skip: skipUnlessThere('runc') || skipUnless('ldd') || skip,
}, async (t) => {
  const paths = freshStore(t);
  const mountPoints = ['dev', 'proc', 'sys'].map((name): Entry => ({ name, type: '5' }));
  const { diffIds } = await storeTars(paths, tarOf(...echoProgram(), ...mountPoints));
  const bundle = temporaryDirectory(t);
  await exportRootfs({ store: paths.root, diffIds, directory: join(bundle, 'rootfs') });
  execFileSync('runc', ['spec'], { cwd: bundle });
  const config = join(bundle, 'config.json');
  const { process: spec, ...rest } = JSON.parse(readFileSync(config, 'utf8'));
  const args = ['/bin/echo', 'it runs'];
  writeFileSync(config, JSON.stringify({ ...rest, process: { ...spec, args, terminal: false } }));
  const options = { encoding: 'utf8', stdio: 'pipe' } as const;
  const runc = ['--root', join(bundle, 'state'), 'run', '--bundle', bundle, basename(bundle)];
  assert.equal(execFileSync('runc', runc, options), 'it runs\n');
});

/** No account has it, and no file of the system is its own. */
const NOBODY = 65_534;

/** A copy of the program that any user can read, wherever this one lies. */
function readableCopy(directory: string): string {
  const root = join(import.meta.dirname, '../../..');
  for (const path of ['package.json', 'dist/src', 'dist/bundle', 'node_modules/piscina']) {
    cpSync(join(root, path), join(directory, 'program', path), { recursive: true });
  }
  return join(directory, 'program/dist/src/api/export.js');
}

/** Exports in a process that was root and is nobody now; the warnings. */
function exportAsNobody(program: string, options: object): string {
  const script = `
    process.setgroups([]);
    process.setgid(${NOBODY});
    process.setuid(${NOBODY});
    const { exportRootfs } = await import(${JSON.stringify(program)});
    const onEvent = ({ event, message }) => event === 'warning' && console.log(message);
    await exportRootfs({ ...${JSON.stringify(options)}, onEvent });`;
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
}

test('a user gets what a user can have, and is told the rest', { skip }, async (t) => {
  const { store, diffIds, directory, expected } = await prepare(t, 'chunked-v2');
  for (const path of [directory, store]) chmodSync(path, 0o755);
  chownSync(directory, NOBODY, NOBODY);
  const rootfs = join(directory, 'rootfs');
  const told = exportAsNobody(readableCopy(directory), { store, diffIds, directory: rootfs });
  assert.match(
    told,
    /^left out as a user who is not root: owners of \d+, set-user-ID .* of 1, devices: 1\n$/,
  );
  const listed = listDirectory(rootfs);
  const contents = (lines: readonly string[]) =>
    lines
      .map((line) => line.split(' | '))
      .filter(([, type]) => type !== '3')
      .map(([path, type, mode = '', , , size, hash, link]) => [
        path,
        type,
        mode.replace(/^[46]/, ''),
        size,
        hash,
        link,
      ]);
  assert.deepEqual(contents(listed), contents(expected));
  assert.ok(listed.every((line) => line.includes(`| ${NOBODY}:${NOBODY} |`)));
});

test('as a user directories are closed when all is in them, and programs of others lose what makes them run as those', {
  skip,
}, async (t) => {
  const paths = freshStore(t);
  const records = paxRecord('SCHILY.xattr.user.x', 'y');
  const program = { name: 'program', mode: 0o4755, records } as const;
  const directories = ['a', 'a/b', 'a/b/c'].map((name) => ({ name, type: '5', mode: 0o400 }) as const);
  const link = { name: 'a/b/c/link', type: '1', linkName: 'a/b/c/file' } as const;
  const { diffIds } = await storeTars(paths, tarOf(...directories, { name: 'a/b/c/file' }, link, program));
  const directory = temporaryDirectory(t);
  for (const path of [directory, paths.root]) chmodSync(path, 0o755);
  chownSync(directory, NOBODY, NOBODY);
  const rootfs = join(directory, 'rootfs');
  exportAsNobody(readableCopy(directory), { store: paths.root, diffIds, directory: rootfs });
  const modes = directories.map(({ name }) => (statSync(join(rootfs, name)).mode & 0o777).toString(8));
  assert.deepEqual(modes, ['400', '400', '400']);
  assert.equal(statSync(join(rootfs, 'a/b/c/file')).nlink, 2);
  assert.equal((statSync(join(rootfs, 'program')).mode & 0o7777).toString(8), '755');
});
