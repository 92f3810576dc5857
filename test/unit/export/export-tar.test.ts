import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { ExportEvent } from '../../../src/api/export.js';
import { exportTar } from '../../../src/export/export-files.js';
import { openSpecialFile } from '../../../src/export/output-files.js';
import { formatBytes } from '../../../src/format/figures.js';
import { listTar } from '../../support/listing.js';
import { flipByte } from '../../support/packs.js';
import { skipUnless } from '../../support/programs.js';
import { ENDLESS_BYTES, storeEndlessLayer, storeTars, tarOf } from '../../support/tars.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { freshStore } from '../store/support.js';

const LARGE = Buffer.alloc(3 * 2 ** 20 + 5, 'large');

async function prepare(t: TestContext) {
  const paths = freshStore(t);
  const lower = tarOf(
    { name: 'etc/a', content: 'lower' },
    { name: 'large', content: LARGE },
    { name: 'gone' },
  );
  const upper = tarOf(
    { name: 'etc/a', content: 'upper' },
    { name: '.wh.gone' },
    { name: 'b', type: '1', linkName: 'large' },
  );
  return { store: paths.root, directory: temporaryDirectory(t), ...(await storeTars(paths, lower, upper)) };
}

test('the tar has what the layers make, parents first and each content once', async (t) => {
  const { store, diffIds, directory } = await prepare(t);
  const file = join(directory, 'all.tar');
  const events: ExportEvent[] = [];
  assert.equal(await exportTar({ store, diffIds, file, onEvent: (event) => events.push(event) }), true);
  const same = tarOf(
    { name: 'b', content: LARGE },
    { name: 'etc', type: '5', mtimeSeconds: 0 },
    { name: 'etc/a', content: 'upper' },
    { name: 'large', type: '1', linkName: 'b' },
  );
  assert.deepEqual(listTar(readFileSync(file)), listTar(same));
  assert.deepEqual(readdirSync(directory), ['all.tar']);
  const totalBytes = LARGE.length + 5;
  assert.deepEqual(events.at(0), { event: 'exporting', destination: `tar:${file}`, totalBytes });
  assert.deepEqual(events.at(-1), { event: 'written', writtenBytes: totalBytes, totalBytes });
});

test('the tar is the same every time', async (t) => {
  const { store, diffIds, directory } = await prepare(t);
  const files = ['1', '2'].map((name) => join(directory, name));
  for (const file of files) await exportTar({ store, diffIds, file });
  assert.ok(readFileSync(files[0]!).equals(readFileSync(files[1]!)));
});

test('two exports into one file at once are both whole, one after the other', async (t) => {
  const { store, diffIds, directory } = await prepare(t);
  const file = join(directory, 'all.tar');
  const alone = join(directory, 'alone.tar');
  await exportTar({ store, diffIds, file: alone });
  await Promise.all([1, 2].map(() => exportTar({ store, diffIds, file })));
  assert.ok(readFileSync(file).equals(readFileSync(alone)));
  assert.deepEqual(readdirSync(directory).sort(), ['all.tar', 'alone.tar']);
});

test('damage of a content that even is in no upper layer any more leaves no tar', async (t) => {
  const { store, diffIds, directory, packs } = await prepare(t);
  const file = join(directory, 'all.tar');
  writeFileSync(file, 'from before');
  // The first pack begins with the header and the content of etc/a, which the upper layer hides.
  flipByte(packs[0]!, 512);
  const broken = exportTar({ store, diffIds, file });
  await assert.rejects(broken, { code: 'digest-mismatch', message: new RegExp(diffIds[0]!) });
  assert.deepEqual([readdirSync(directory), readFileSync(file, 'utf8')], [['all.tar'], 'from before']);
});

test('a header that is damaged is reported as damage', async (t) => {
  const { store, diffIds, directory, packs } = await prepare(t);
  flipByte(packs[0]!, 0);
  const broken = exportTar({ store, diffIds, file: join(directory, 'all.tar') });
  await assert.rejects(broken, { code: 'digest-mismatch' });
});

test('a layer that is no tar, but what its DiffID says, is malformed', async (t) => {
  const paths = freshStore(t);
  const { diffIds } = await storeTars(paths, Buffer.alloc(2048, 'no tar'));
  const file = join(temporaryDirectory(t), 'all.tar');
  await assert.rejects(exportTar({ store: paths.root, diffIds, file }), { code: 'metadata-malformed' });
  assert.equal(existsSync(file), false);
});

test('a place that cannot be written is the reason given', async (t) => {
  const { store, diffIds, directory } = await prepare(t);
  const file = join(directory, 'none', 'all.tar');
  await assert.rejects(exportTar({ store, diffIds, file }), { message: new RegExp(file) });
  mkdirSync(join(directory, 'taken'));
  await assert.rejects(exportTar({ store, diffIds, file: join(directory, 'taken') }), {
    message: /taken/,
    hint: /the destination you mean/,
  });
  assert.deepEqual(readdirSync(directory), ['taken']);
});

test('a disk without room is refused with the bytes that are missing; what was there stays', async (t) => {
  const paths = freshStore(t);
  const { diffId, guard } = await storeEndlessLayer(paths);
  const directory = temporaryDirectory(t);
  const file = join(directory, 'all.tar');
  writeFileSync(file, 'from before');
  // Its header and the end of the tar are needed as well.
  const message = new RegExp(
    `^${directory} needs ${formatBytes(ENDLESS_BYTES + 3 * 512)} and has .* missing$`,
  );
  const exporting = exportTar({ ...guard, store: paths.root, diffIds: [diffId], file });
  await assert.rejects(exporting, { code: 'store-full', message });
  assert.deepEqual([readdirSync(directory), readFileSync(file, 'utf8')], [['all.tar'], 'from before']);
});

test('a pipe is written into and stays one', { skip: skipUnless('mkfifo', 'cat') }, async (t) => {
  const { store, diffIds, directory } = await prepare(t);
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'inherit'] });
  const read = buffer(reader.stdout);
  assert.equal(await exportTar({ store, diffIds, file: pipe }), true);
  const file = join(directory, 'file');
  await exportTar({ store, diffIds, file });
  assert.ok((await read).equals(readFileSync(file)));
  assert.equal(lstatSync(pipe).isFIFO(), true);
});

/** In a directory of this user alone. */
const own = (path: string) => ({ path, at: path, follows: true });

test('a pipe without a reader is an error after a wait', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const pipe = join(temporaryDirectory(t), 'pipe');
  execFileSync('mkfifo', [pipe]);
  await assert.rejects(openSpecialFile(own(pipe), 1), {
    code: 'option-malformed',
    hint: /Start its reader/,
  });
  const waiting = openSpecialFile(own(pipe));
  const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'inherit'] });
  closeSync(await waiting);
  assert.equal((await buffer(reader.stdout)).length, 0);
});

test('what is no pipe and cannot be opened is an error at once', async (t) => {
  const path = join(temporaryDirectory(t), 'socket');
  const server = createServer().listen(path);
  t.after(() => server.close());
  await once(server, 'listening');
  await assert.rejects(openSpecialFile(own(path)), { code: 'store-broken', message: /ENXIO/ });
});
