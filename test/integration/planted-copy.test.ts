import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import type { PullError } from '../../src/api/errors.js';
import { LOCK_DIRECTORY } from '../../src/copy/layout-lock.js';
import { makeOwnFile, openOwnFile } from '../../src/files/guarded-directory.js';
import { fixtureBlob, LAYER_DIGEST } from '../support/fixture-layout.js';
import { KINDS, type Kind, plant } from '../support/planted.js';
import { skipUnless, ZPULL } from '../support/programs.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const NOBODY = 65_534;
const AS_ROOT = process.getuid?.() !== 0 && 'needs root, to give files to another user';
const HEX = LAYER_DIGEST.slice(7);
const LAYER = fixtureBlob(LAYER_DIGEST);
/** A copy that opens a FIFO never ends. */
const LIMIT_MS = 60_000;

/** A file of somebody else, which must stay as it is. */
function victim(t: TestContext) {
  const secret = join(temporaryDirectory(t), 'secret');
  writeFileSync(secret, 'secret');
  const before = statSync(secret);
  const assertUntouched = (message: string) => {
    const { mtimeMs, size } = statSync(secret);
    assert.deepEqual([mtimeMs, size], [before.mtimeMs, before.size], message);
    assert.equal(readFileSync(secret, 'utf8'), 'secret', message);
    assert.deepEqual(readdirSync(dirname(secret)), ['secret'], message);
  };
  return { secret, assertUntouched };
}

/** The exit code of a copy, and what it said; with a FIFO in a process of its own, as what waits for one holds up its whole thread. */
async function endOf(kind: Kind, image: string, scheme: 'oci' | 'oci-archive', path: string) {
  if (kind !== 'fifo') {
    const destination = { kind: scheme === 'oci' ? 'layout' : 'archive', path } as const;
    const error = await copyImage(image, { destination }).then(
      () => undefined,
      (reason: unknown) => reason as PullError,
    );
    return { code: error === undefined ? 0 : error.exitCode, said: `${error} hint: ${error?.hint}` };
  }
  const child = spawn(process.execPath, [...ZPULL, 'copy', image, `${scheme}:${path}`, '-q'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, said };
}

const LINKS: readonly Kind[] = ['link', 'dangling', 'zeros', 'hard link', 'huge'];

/** Where in a layout things are planted, of which kinds, and how the copy ends. */
const IN_LAYOUT: readonly (readonly [places: readonly string[], kinds: readonly Kind[], code: number])[] = [
  [
    [
      `blobs/sha256/${HEX}.part`,
      `blobs/sha256/${HEX}.part.ranges`,
      `blobs/sha256/${HEX}`,
      'oci-layout',
      `${LOCK_DIRECTORY}/${'0'.repeat(64)}`,
    ],
    ['fifo', ...LINKS],
    0,
  ],
  [['index.json'], ['fifo', 'link', 'dangling', 'zeros', 'huge', 'directory'], 7],
  // It is a file, and what it says is no index.
  [['index.json'], ['hard link'], 6],
  [[`blobs/sha256/${HEX}.part`], ['directory'], 7],
  [[`blobs/sha256/${HEX}.part.ranges`], ['directory'], 7],
  [[`blobs/sha256/${HEX}`], ['directory'], 7],
  [['oci-layout'], ['directory'], 7],
  [[`${LOCK_DIRECTORY}/${'0'.repeat(64)}`], ['directory'], 7],
];

test('nothing that is planted in a layout is written through, waited for or taken for a part of the copy', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { host } = await startSandbox(t);
  const { secret, assertUntouched } = victim(t);
  for (const [places, kinds, expected] of IN_LAYOUT) {
    for (const kind of kinds) {
      const layout = temporaryDirectory(t);
      const message = `${kind} as ${places}`;
      mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
      mkdirSync(join(layout, LOCK_DIRECTORY));
      writeFileSync(join(layout, 'oci-layout'), '{}');
      plant(
        kind,
        places.map((place) => join(layout, place)),
        secret,
      );
      const { code, said } = await endOf(kind, `${host}/x:chunked-v1`, 'oci', layout);
      assert.equal(code, expected, `${message}: ${said}`);
      assertUntouched(message);
      if (expected !== 0) continue;
      const blob = join(layout, 'blobs/sha256', HEX);
      assert.ok(lstatSync(blob).isFile() && lstatSync(blob).nlink === 1, message);
      assert.ok(readFileSync(blob).equals(LAYER), message);
    }
  }
});

test('a layout whose directories are links is refused', async (t) => {
  const { host } = await startSandbox(t);
  const target = temporaryDirectory(t);
  mkdirSync(join(target, 'sha256'));
  for (const name of ['blobs', 'blobs/sha256', LOCK_DIRECTORY]) {
    const path = temporaryDirectory(t);
    writeFileSync(join(path, 'oci-layout'), '{}');
    mkdirSync(dirname(join(path, name)), { recursive: true });
    symlinkSync(target, join(path, name));
    const error = await failureOf(
      copyImage(`${host}/x:chunked-v1`, { destination: { kind: 'layout', path } }),
    );
    assert.deepEqual([error.code, error.exitCode], ['store-broken', 7], name);
    assert.ok(error.message.includes(join(path, name)), error.message);
    assert.deepEqual(readdirSync(target, { recursive: true }), ['sha256'], name);
  }
});

test('nothing that is planted beside an archive is written through, waited for or taken for a part of the copy', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { host } = await startSandbox(t);
  const { secret, assertUntouched } = victim(t);
  const suffixes: readonly (readonly [suffix: string, code: number])[] = [
    ['.part', 2],
    ['.part.ranges', 0],
    ['.part.lock', 7],
  ];
  for (const kind of ['fifo', 'directory', 'link', 'hard link'] as const) {
    for (const [suffix, ends] of suffixes) {
      const file = join(temporaryDirectory(t), 'x.tar');
      const message = `${kind} as x.tar${suffix}`;
      plant(kind, [`${file}${suffix}`], secret);
      const { code, said } = await endOf(kind, `${host}/x:chunked-v1`, 'oci-archive', file);
      const isOwn = kind === 'directory' && suffix === '.part.lock';
      const isStuck = kind === 'directory' && suffix === '.part.ranges';
      assert.equal(code, isOwn ? 0 : isStuck ? 7 : ends, `${message}: ${said}`);
      if (code !== 0) assert.match(said, /hint: /);
      else assert.ok(lstatSync(file).isFile() && lstatSync(file).nlink === 1, message);
      assertUntouched(message);
      assert.equal(existsSync(file), code === 0, message);
    }
  }
});

test('what another user left under the name of a part is not taken up, in a layout or beside an archive', {
  skip: AS_ROOT,
}, async (t) => {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const layout = temporaryDirectory(t);
  const part = join(layout, 'blobs', 'sha256', `${HEX}.part`);
  mkdirSync(dirname(part), { recursive: true });
  for (const path of [part, `${part}.ranges`]) {
    writeFileSync(path, path === part ? LAYER : `${LAYER_DIGEST}\n0 ${LAYER.length}\n`);
    chownSync(path, NOBODY, NOBODY);
  }
  const result = await copyImage(image, { destination: { kind: 'layout', path: layout } });
  assert.equal(result.resumedBytes, 0);
  assert.equal(statSync(join(layout, 'blobs', 'sha256', HEX)).uid, 0, 'the result is no file of his');

  const file = join(temporaryDirectory(t), 'x.tar');
  for (const path of [`${file}.part`, `${file}.part.ranges`]) {
    writeFileSync(path, 'his');
    chownSync(path, NOBODY, NOBODY);
  }
  const error = await failureOf(copyImage(image, { destination: { kind: 'archive', path: file } }));
  assert.deepEqual([error.code, error.exitCode], ['option-malformed', 2]);
  assert.equal(readFileSync(`${file}.part`, 'utf8'), 'his');
});

test('the lock of another user, or one in which everybody may write, is refused and left alone', {
  skip: AS_ROOT,
}, async (t) => {
  const { host } = await startSandbox(t);
  for (const [uid, mode] of [
    [NOBODY, 0o755],
    [0, 0o777],
  ] as const) {
    const path = temporaryDirectory(t);
    const lock = join(path, LOCK_DIRECTORY);
    mkdirSync(lock);
    writeFileSync(join(lock, 'his'), '');
    chownSync(lock, uid, uid);
    chmodSync(lock, mode);
    const error = await failureOf(
      copyImage(`${host}/x:chunked-v1`, { destination: { kind: 'layout', path } }),
    );
    assert.deepEqual([error.code, error.exitCode], ['option-malformed', 2]);
    assert.match(error.message, /belongs to or can be written by other users/);
    assert.deepEqual(readdirSync(lock), ['his']);
  }
});

test('a layout in a directory of another user is a destination like any other', {
  skip: AS_ROOT,
}, async (t) => {
  const { host } = await startSandbox(t);
  const path = temporaryDirectory(t);
  for (const name of ['.', 'blobs', 'blobs/sha256']) {
    mkdirSync(join(path, name), { recursive: true });
    chownSync(join(path, name), NOBODY, NOBODY);
  }
  await copyImage(`${host}/x:chunked-v1`, { destination: { kind: 'layout', path } });
  const again = await copyImage(`${host}/x:chunked-v1`, { destination: { kind: 'layout', path } });
  assert.equal(again.fetchedBytes, 0);
});

test('a file that is swapped after it was made is not opened again, whatever took its place', {
  skip: skipUnless('mkfifo'),
}, (t) => {
  const { secret, assertUntouched } = victim(t);
  for (const kind of [...KINDS, 'hard link', 'other'] as const) {
    const path = join(temporaryDirectory(t), 'file');
    const file = makeOwnFile(path);
    renameSync(path, `${path}.aside`);
    if (kind === 'other') writeFileSync(path, '');
    else plant(kind, [path], secret);
    assert.throws(() => openOwnFile(file), { code: 'store-broken' }, kind);
    rmSync(path, { recursive: true });
    assertUntouched(kind);
  }
});
