import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type CopyOptions, copyImage } from '../../src/api/copy.js';
import { PullError } from '../../src/api/errors.js';
import type { PullEvent } from '../../src/api/pull.js';
import { LOCK_DIRECTORY, lockDestination } from '../../src/copy/layout-lock.js';
import { tarEntries } from '../../src/format/tar-entries.js';
import { Stop } from '../../src/pull/pull-context.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { overlappingImages, readManifest } from '../support/layout.js';
import { assertAskedOnce, failureOf, firstEvent, layerAsks } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { sourceOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;
/** Whoever waits for a lock that nobody gives back waits for ever. */
const LIMIT = { timeout: 60_000 };

function copyInto(path: string, tag: string, image: string, more: Partial<CopyOptions> = {}) {
  return copyImage(image, { destination: { kind: 'layout', path, tag }, ...more });
}

/** The fixture image, a layout to be, and the directory of its lock. */
async function prepare(t: TestContext, faults: readonly FaultRule[] = []) {
  const registry = await startSandbox(t, { faults });
  const layout = join(temporaryDirectory(t), 'layout');
  return { image: `${registry.host}/x:chunked-v1`, layout, lock: join(layout, LOCK_DIRECTORY) };
}

async function holdLock(layout: string): Promise<() => void> {
  const onWait = () => assert.fail('the lock should be free');
  const { close } = await lockDestination(join(layout, LOCK_DIRECTORY), new Stop(), onWait);
  return close;
}

/** What a process leaves that died 16 s ago while it copied. */
async function leaveDeadLock(layout: string): Promise<void> {
  const directory = join(layout, LOCK_DIRECTORY);
  const release = await holdLock(layout);
  const left = readdirSync(directory).map((name) => [name, readFileSync(join(directory, name))] as const);
  release();
  mkdirSync(directory);
  for (const [name, bytes] of left) {
    const path = join(directory, name);
    writeFileSync(path, bytes);
    const then = statSync(path).mtimeMs / 1000 - 16;
    utimesSync(path, then, then);
  }
}

test('copies into one layout at once fetch nothing twice, and every tag is in it', LIMIT, async (t) => {
  const registry = await startSandbox(t, { layout: await overlappingImages(t), rateBytes: 4 * MIB });
  const layout = join(temporaryDirectory(t), 'layout');
  const waited: string[] = [];
  const results = await Promise.all(
    ['one', 'two', 'two'].map((name, row) => {
      const tag = `${name}-${row}`;
      const onEvent = ({ event }: PullEvent) => {
        if (event === 'waiting-for-layers') waited.push(tag);
      };
      return copyInto(layout, tag, `${registry.host}/x:${name}`, { onEvent });
    }),
  );
  assert.equal(waited.length, 2, 'all but one were told to wait, once');
  assertAskedOnce(layerAsks(registry));
  const [one, two, three] = ['one-0', 'two-1', 'two-2'].map((tag) => readManifest(layout, tag));
  assert.equal(one!.layers[0]!.digest, two!.layers[0]!.digest);
  assert.deepEqual(two, three);
  const held = new Map(
    [one!, two!].flatMap(({ config, layers }) =>
      [config, ...layers].map(({ digest, size }) => [digest, size]),
    ),
  );
  const fetched = results.reduce((sum, { fetchedBytes }) => sum + fetchedBytes, 0);
  assert.equal(
    fetched,
    [...held.values()].reduce<number>((sum, size) => sum + Number(size), 0),
  );
  assert.deepEqual(readdirSync(layout).sort(), ['blobs', 'index.json', 'oci-layout']);
  assert.deepEqual(
    readdirSync(join(layout, 'blobs', 'sha256')).filter((name) => name.includes('.')),
    [],
  );
});

test('copies into one file take turns, and the last one has it', LIMIT, async (t) => {
  const registry = await startSandbox(t, { layout: await overlappingImages(t), rateBytes: 8 * MIB });
  const directory = temporaryDirectory(t);
  const path = join(directory, 'image.tar');
  const ended: string[] = [];
  const waited: string[] = [];
  await Promise.all(
    ['one', 'two'].map(async (tag) => {
      const onEvent = ({ event }: PullEvent) => {
        if (event === 'waiting-for-layers') waited.push(tag);
      };
      await copyImage(`${registry.host}/x:${tag}`, { destination: { kind: 'archive', path, tag }, onEvent });
      ended.push(tag);
    }),
  );
  assert.deepEqual(waited, [ended[1]]);
  const tar = readFileSync(path);
  const entries = [...tarEntries(sourceOf(tar))].map(({ entry, contentStart, contentBytes }) => {
    return [entry.name.toString(), tar.subarray(contentStart, contentStart + contentBytes)] as const;
  });
  const blobs = entries.filter(([name]) => name.startsWith('blobs/'));
  assert.equal(blobs.length, ended[1] === 'one' ? 3 : 4);
  for (const [name, bytes] of blobs)
    assert.equal(`blobs/sha256/${createHash('sha256').update(bytes).digest('hex')}`, name);
  assert.match(new Map(entries).get('index.json')!.toString(), new RegExp(`"${ended[1]}"`));
  assert.deepEqual(readdirSync(directory), ['image.tar']);
});

test('a copy that waits ends when it is aborted, and leaves the lock to its holder', LIMIT, async (t) => {
  const { image, layout, lock } = await prepare(t);
  const release = await holdLock(layout);
  const before = readdirSync(lock);
  const controller = new AbortController();
  const reason = new PullError('interrupted', 'enough');
  const { seen, onEvent } = firstEvent(({ event }) => event === 'waiting-for-layers');
  const waiting = failureOf(copyInto(layout, 'mine', image, { signal: controller.signal, onEvent }));
  await seen;
  controller.abort(reason);
  assert.equal(await waiting, reason);
  assert.deepEqual(readdirSync(lock), before);
  assert.deepEqual(readdirSync(layout), [LOCK_DIRECTORY]);
  release();
  await copyInto(layout, 'mine', image);
  assert.equal(existsSync(lock), false);
});

test('a copy that ends before it locks the layout leaves nothing there', LIMIT, async (t) => {
  const { image, layout } = await prepare(t);
  const controller = new AbortController();
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'resolved') controller.abort();
  };
  const { code } = await failureOf(copyInto(layout, 'mine', image, { signal: controller.signal, onEvent }));
  assert.deepEqual([code, existsSync(layout)], ['interrupted', false]);
});

test('the lock of a process that is dead holds up nobody, and is removed', LIMIT, async (t) => {
  const { image, layout, lock } = await prepare(t);
  await leaveDeadLock(layout);
  assert.equal(readdirSync(lock).length, 2);
  const onEvent = ({ event }: PullEvent) => assert.notEqual(event, 'waiting-for-layers');
  await copyInto(layout, 'mine', image, { onEvent });
  assert.equal(readManifest(layout, 'mine').layers[0]!.digest, LAYER_DIGEST);
  assert.equal(existsSync(lock), false);
});

test('a directory that has only what a killed copy left may become a layout', LIMIT, async (t) => {
  const { image, layout, lock } = await prepare(t);
  await leaveDeadLock(layout);
  mkdirSync(join(layout, 'blobs', 'sha256'), { recursive: true });
  writeFileSync(join(layout, 'oci-layout.0123456789abcdef.tmp'), '');
  await copyInto(layout, 'mine', image);
  assert.equal(existsSync(lock), false);
  const { layout: other } = await prepare(t);
  await leaveDeadLock(other);
  writeFileSync(join(other, 'thesis.txt'), '');
  assert.equal((await failureOf(copyInto(other, 'mine', image))).code, 'option-malformed');
});

test('a copy that fails or is aborted gives the lock back', LIMIT, async (t) => {
  const wrong = await prepare(t, [{ match: { path: LAYER_DIGEST }, action: { flipByteAt: 1000 } }]);
  const { code } = await failureOf(copyInto(wrong.layout, 'mine', wrong.image));
  assert.deepEqual([code, existsSync(wrong.lock)], ['digest-mismatch', false]);
  const stalled = await prepare(t, [{ match: { path: LAYER_DIGEST }, action: { stallAfterBytes: 100 } }]);
  const controller = new AbortController();
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'planned') assert.ok(existsSync(stalled.lock));
    if (event === 'planned') controller.abort();
  };
  const options = { signal: controller.signal, onEvent };
  const aborted = await failureOf(copyInto(stalled.layout, 'mine', stalled.image, options));
  assert.deepEqual([aborted.code, existsSync(stalled.lock)], ['interrupted', false]);
});
