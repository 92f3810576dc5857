import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createBlockTags } from '../../src/export/block-tags.js';
import { exportRootfs, exportTar } from '../../src/export/export-files.js';
import { exportDockerArchive, exportLayers } from '../../src/export/export-layers.js';
import { NO_ROW } from '../../src/export/file-tree.js';
import { flatten } from '../../src/export/flatten.js';
import { RowWriter } from '../../src/export/tree-nodes.js';
import { OpenDirectory } from '../../src/files/open-directory.js';
import { digestHex } from '../../src/format/digest.js';
import { paxRecord } from '../../src/format/tar-writer.js';
import type { ExportedLayer, Task, TreeRows } from '../../src/pool/messages.js';
import { createCounters } from '../../src/pool/shared-memory.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import { putBlob } from '../../src/store/image-record.js';
import { readLayerRecord } from '../../src/store/layer-record.js';
import { skipUnless } from '../support/programs.js';
import { sourceOf, storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf, freshStore } from '../unit/store/support.js';

const LARGE = Buffer.alloc(2 ** 21, 'what the layer has');
const SMALL = 'a small file';
/** The last one is left to tar. */
const ENTRIES = [
  { name: 'dir', type: '5' },
  { name: 'dir/large', content: LARGE },
  { name: 'dir/small', content: SMALL },
  { name: 'last', content: LARGE, records: paxRecord('SCHILY.xattr.user.x', 'y') },
] as const;

/** A store with one layer, the pack that has the end of it, and what that pack says, right and wrong. */
async function prepare(t: TestContext) {
  const paths = freshStore(t);
  const tar = tarOf(...ENTRIES);
  const { diffIds, packs } = await storeTars(paths, tar);
  const pack = packs[1]!;
  const right = readFileSync(pack);
  const wrong = Buffer.from(right);
  wrong.write('SOMETHING ELSE', right.lastIndexOf('what the layer has'));
  // Of the header alone, which has no checksum for this.
  const wrongHeader = Buffer.from(right);
  wrongHeader.write('user.X', right.lastIndexOf('user.x'));
  const outside = temporaryDirectory(t);
  return { paths, store: paths.root, tar, diffIds, pack, right, wrong, wrongHeader, outside };
}

/** Ways to put other bytes under the name of a pack. */
const CHANGES: Readonly<Record<string, (pack: string, bytes: Buffer) => void>> = {
  'written over': (pack, bytes) => {
    const fd = openSync(pack, 'r+');
    writeSync(fd, bytes, 0, bytes.length, 0);
    closeSync(fd);
  },
  'renamed over': (pack, bytes) => {
    writeFileSync(`${pack}.new`, bytes);
    renameSync(`${pack}.new`, pack);
  },
  truncated: (pack, bytes) => {
    const end = bytes.indexOf('SOMETHING ELSE');
    if (end >= 0) truncateSync(pack, end);
    else writeFileSync(pack, bytes);
  },
};

type Prepared = Awaited<ReturnType<typeof prepare>>;

/** A pool of one thread, as an export has it: what a task does is done before the next one begins. */
async function poolFor(t: TestContext, { paths, diffIds }: Prepared) {
  const { diffId, extents } = readLayerRecord(paths, diffIds[0]!)!;
  const layer = { diffId, extents: extents.toRows(), tags: createBlockTags(extents.lengthBytes) };
  const pool = await WorkerPool.start({
    threads: 1,
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters(), layers: [layer] },
    onEvent: () => {},
  });
  t.after(() => pool.destroy());
  return { pool, layer, proof: { task: 'check-layer', ...layer } as const };
}

/** The files of a tar as they are written before all layers are there. */
function filesOf(tar: Buffer): TreeRows {
  const writer = new RowWriter(3, 100);
  flatten([sourceOf(tar)], {}, (_, path, inode) => {
    writer.add({ ...inode, xattrRecords: '', row: -1 }, path, NO_ROW);
  });
  return writer.finish();
}

/** Every task that reads the layer as files. */
function readers(
  t: TestContext,
  { tar, outside: directory }: Prepared,
  layer: ExportedLayer,
): Record<string, Task> {
  const tree = flatten([sourceOf(tar)]);
  const abilities = { uid: 0, umask: 0o022, owners: false };
  const held = OpenDirectory.hold(directory);
  t.after(() => held.close());
  const inodes = new BigUint64Array(new SharedArrayBuffer(8 * tree.count));
  const common = { tree, directory: held.shared, inodes, replace: true, begun: false };
  const path = join(directory, 'all.tar');
  const fd = openSync(path, 'w');
  t.after(() => closeSync(fd));
  const rows = Uint32Array.from({ length: tree.count }, (_, row) => row);
  return {
    flatten: { task: 'flatten', intoFiles: false },
    'write-tar': { task: 'write-tar', tree, to: { fd, path } },
    'write-files': { task: 'write-files', ...common, abilities: { ...abilities, tar: false }, rows },
    'unpack-files': {
      task: 'unpack-files',
      tree: filesOf(tar),
      blocks: [],
      layer,
      extents: layer.extents,
      firstBlock: 0,
      directory: held.shared,
      abilities: { ...abilities, tar: false },
    },
    'write-specials': { task: 'write-specials', ...common, abilities: { ...abilities, tar: true } },
  };
}

const CASES = [
  ...['flatten', 'write-tar', 'write-files', 'unpack-files', 'write-specials'].map(
    (reader) => [reader, 'written over'] as const,
  ),
  ['write-files', 'renamed over'] as const,
  ['write-files', 'truncated'] as const,
];

/** What is wrong in bytes that the reader reads. */
function wrongFor(reader: string, { wrong, wrongHeader }: Prepared): Buffer {
  return reader === 'flatten' ? wrongHeader : wrong;
}

for (const [reader, how] of CASES) {
  const skip = reader === 'write-specials' ? skipUnless('tar') : false;

  test(`${reader} does not take what a pack says that is ${how} after the proof`, { skip }, async (t) => {
    const prepared = await prepare(t);
    const { pool, layer, proof } = await poolFor(t, prepared);
    mkdirSync(join(prepared.outside, 'dir'));
    assert.deepEqual(await pool.run(proof), { isIntact: true, changed: false, falsePaths: [] });
    CHANGES[how]!(prepared.pack, wrongFor(reader, prepared));
    const { code } = await failureOf(pool.run(readers(t, prepared, layer)[reader]!));
    assert.equal(code, how === 'truncated' ? 'store-broken' : 'digest-mismatch');
  });

  test(`the proof knows what ${reader} took from a pack that was ${how} and is right again`, {
    skip,
  }, async (t) => {
    const prepared = await prepare(t);
    const { pool, layer, proof } = await poolFor(t, prepared);
    mkdirSync(join(prepared.outside, 'dir'));
    CHANGES[how]!(prepared.pack, wrongFor(reader, prepared));
    const reading = pool.run(readers(t, prepared, layer)[reader]!);
    if (how === 'truncated') assert.equal((await failureOf(reading)).code, 'store-broken');
    else await reading;
    CHANGES[how]!(prepared.pack, prepared.right);
    const { isIntact, changed } = await pool.run(proof);
    assert.deepEqual([isIntact, changed], [true, how !== 'truncated']);
  });
}

async function failureOf(work: Promise<unknown>): Promise<{ code?: string; hint?: string; message: string }> {
  const outcome = await work.then(
    () => undefined,
    (error: { code: string; message: string }) => error,
  );
  assert.ok(outcome !== undefined, 'it should have failed');
  return outcome;
}

/** What an export came to: it has failed as it should, or `isRight` says that it wrote the right bytes. */
async function failedOrRight(exporting: Promise<unknown>, isRight: () => boolean): Promise<void> {
  const error = await exporting.then(
    () => undefined,
    (reason: unknown) => reason as { code: string },
  );
  if (error === undefined) assert.ok(isRight(), 'it wrote wrong bytes and did not fail');
  else assert.equal(error.code, 'digest-mismatch');
}

test('a tar of a pack that changes while it is written is right or fails', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { store, diffIds, tar, outside, pack, wrong } = await prepare(t);
  const pipe = join(outside, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const exporting = exportTar({ store, diffIds, file: pipe });
  exporting.catch(() => {});
  const reader = await open(pipe, 'r');
  t.after(() => reader.close());
  const parts: Buffer[] = [];
  // The pipe is full now, and most of the layer is still to be read, while another thread hashes it.
  for (let done = 0; ; ) {
    const { bytesRead, buffer } = await reader.read({ buffer: Buffer.alloc(2 ** 16) });
    if (bytesRead === 0) break;
    parts.push(buffer.subarray(0, bytesRead));
    done += bytesRead;
    if (done > 2 ** 20 && done <= 2 ** 20 + bytesRead) CHANGES['written over']!(pack, wrong);
  }
  await failedOrRight(exporting, () => Buffer.concat(parts).includes(tar.subarray(-LARGE.length, -1024)));
});

test('a root file system of a pack that changes behind the proof is right or fails', async (t) => {
  const { store, diffIds, outside, pack, wrong } = await prepare(t);
  const directory = join(outside, 'out');
  mkdirSync(directory);
  writeFileSync(join(directory, 'last'), 'from before');
  let over = false;
  const exporting = exportRootfs({ store, diffIds, directory, force: true }).finally(() => {
    over = true;
  });
  exporting.catch(() => {});
  // Nothing is made before all layers are proven.
  while (!over && !existsSync(join(directory, 'dir'))) await nextTurn();
  CHANGES['written over']!(pack, wrong);
  await failedOrRight(exporting, () => readFileSync(join(directory, 'last')).equals(LARGE));
  const last = readFileSync(join(directory, 'last'));
  assert.ok(!last.includes('SOMETHING ELSE'), 'a wrong byte replaced what was there');
});

test('the tar of a layer whose pack changes at the beginning is right or fails', async (t) => {
  const { store, diffIds, outside, tar, pack, wrong } = await prepare(t);
  const onEvent = ({ event }: { event: string }) => {
    if (event === 'exporting') CHANGES['written over']!(pack, wrong);
  };
  const file = join(outside, `${digestHex(diffIds[0]!)}.tar`);
  const exporting = exportLayers({ store, diffIds, directory: outside, onEvent });
  await failedOrRight(exporting, () => readFileSync(file).equals(tar));
});

test('an archive of a pack that changes at the beginning is right or fails', async (t) => {
  const { store, paths, diffIds, outside, tar, pack, wrong } = await prepare(t);
  const rootfs = { type: 'layers', diff_ids: diffIds };
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs }));
  const descriptor = (mediaType: string, digest: string, size: number) => ({ mediaType, digest, size });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: descriptor('application/vnd.oci.image.config.v1+json', digestOf(config), config.length),
      layers: [descriptor('application/vnd.oci.image.layer.v1.tar', diffIds[0]!, tar.length)],
    }),
  );
  for (const blob of [config, manifest]) await putBlob(paths, digestOf(blob), blob);
  const file = join(outside, 'image.tar');
  const onEvent = ({ event }: { event: string }) => {
    if (event === 'exporting') CHANGES['written over']!(pack, wrong);
  };
  const image = { digest: digestOf(manifest), reference: 'localhost/x' };
  await failedOrRight(exportDockerArchive({ store, file, ...image, onEvent }), () =>
    readFileSync(file).includes(tar),
  );
});
