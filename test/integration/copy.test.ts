import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CopyOptions, copyImage } from '../../src/api/copy.js';
import { PullError } from '../../src/api/errors.js';
import { inspectImage, type PullEvent } from '../../src/api/pull.js';
import { tarEntries } from '../../src/format/tar-entries.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { registryTable, setEnvironment, useRegistriesConf } from '../support/environment.js';
import { FIXTURE_LAYOUT, fixtureBlob, LAYER_DIGEST } from '../support/fixture-layout.js';
import { fixtureCopy, nameDocument, OCI_INDEX, OCI_MANIFEST, readManifest } from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { askedBytes, failureOf, layerAsks, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { makeReadOnly, skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { sourceOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';

const V1 = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';
const LAYER = fixtureBlob(LAYER_DIGEST);

async function prepare(t: TestContext, faults: readonly FaultRule[] = []) {
  const registry = await startSandbox(t, { faults });
  const directory = join(temporaryDirectory(t), 'layout');
  return { registry, image: `${registry.host}/any/name:chunked-v1`, directory };
}

async function copy(image: string, destination: CopyOptions['destination'], more: Partial<CopyOptions> = {}) {
  const events: PullEvent[] = [];
  const result = await copyImage(image, { destination, onEvent: (event) => events.push(event), ...more });
  return { result, events };
}

const layout = (path: string, tag?: string) => ({ kind: 'layout', path, ...(tag && { tag }) }) as const;
const archive = (path: string, tag?: string) => ({ kind: 'archive', path, ...(tag && { tag }) }) as const;

/** Every blob of a layout is named by its hash; the names. */
function provenBlobs(directory: string): string[] {
  const blobs = join(directory, 'blobs', 'sha256');
  const names = readdirSync(blobs).sort();
  for (const name of names) {
    assert.equal(
      createHash('sha256')
        .update(readFileSync(join(blobs, name)))
        .digest('hex'),
      name,
    );
  }
  return names;
}

/** The blobs of an image in the fixture layout, its manifest included. */
function blobsOf(tag: string): string[] {
  const { config, layers } = readManifest(FIXTURE_LAYOUT, tag);
  return [...new Set([config, ...layers].map(({ digest }) => digest.slice(7)))];
}

test('an image is copied byte for byte into a layout, and a second copy fetches nothing', async (t) => {
  const { registry, image, directory } = await prepare(t);
  const { result, events } = await copy(image, layout(directory, 'one'));
  assert.equal(result.digest, V1);
  assert.deepEqual(provenBlobs(directory), [...blobsOf('chunked-v1'), V1.slice(7)].sort());
  const planned = events.find((event) => event.event === 'planned');
  assert.ok(planned?.event === 'planned');
  assert.equal(result.fetchedBytes, planned.totalBytes);
  assert.equal(askedBytes(layerAsks(registry)), result.fetchedBytes);
  const asked = layerAsks(registry).length;
  const again = await copy(image, layout(directory, 'two'));
  assert.deepEqual([again.result.fetchedBytes, layerAsks(registry).length], [0, asked]);
  assert.equal(again.result.reusedBytes, result.fetchedBytes);
});

test('the copy, served, pulls as the same image', async (t) => {
  const { image, directory } = await prepare(t);
  await copy(image, layout(directory, 'copied'));
  const served = await startSandbox(t, { layout: directory });
  const store = join(directory, '..', 'store');
  const { result } = await pull(`${served.host}/other:copied`, { store, platform: 'linux/amd64' });
  assert.equal(result.digest, V1);
});

test('of a multi-platform image one manifest is copied, or all and the index', async (t) => {
  const source = fixtureCopy(t);
  const manifests = ['chunked-v1', 'chunked-v2'].map((ref, row) => {
    const bytes = Buffer.from(JSON.stringify(readManifest(source, ref)));
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    writeFileSync(join(source, 'blobs', digest.replace(':', '/')), bytes);
    const platform = { os: 'linux', architecture: ['amd64', 'arm64'][row]! };
    return { mediaType: OCI_MANIFEST, digest, size: bytes.length, platform };
  });
  const index = nameDocument(source, 'multi', OCI_INDEX, {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests,
  });
  const registry = await startSandbox(t, { layout: source });
  const directory = temporaryDirectory(t);
  const image = `${registry.host}/x:multi`;
  const one = await copy(image, layout(join(directory, 'one')), { platform: 'linux/arm64' });
  assert.equal(one.result.digest, manifests[1]!.digest);
  assert.deepEqual(
    provenBlobs(join(directory, 'one')),
    [...blobsOf('chunked-v2'), manifests[1]!.digest.slice(7)].sort(),
  );
  const all = await copy(image, layout(join(directory, 'all')), { allPlatforms: true });
  assert.equal(all.result.digest, index.digest);
  const names = [...manifests, index].map(({ digest }) => digest.slice(7));
  assert.deepEqual(
    provenBlobs(join(directory, 'all')),
    [...new Set([...blobsOf('chunked-v1'), ...blobsOf('chunked-v2'), ...names])].sort(),
  );
  await assert.rejects(copy(image, layout(join(directory, 'none')), { platform: 'linux/s390x' }), {
    code: 'platform-not-found',
  });
});

/** What a copy leaves that was killed when the second half of a layer was there. */
function leaveHalf(directory: string): { half: number } {
  const part = join(directory, 'blobs', 'sha256', `${LAYER_DIGEST.slice(7)}.part`);
  mkdirSync(join(directory, 'blobs', 'sha256'), { recursive: true });
  const half = Math.floor(LAYER.length / 2);
  const bytes = Buffer.from(LAYER);
  bytes.fill(0, 0, half);
  writeFileSync(part, bytes);
  writeFileSync(`${part}.ranges`, `${LAYER_DIGEST}\n${half} ${LAYER.length}\n0 `);
  return { half };
}

test('a copy that was broken off goes on where it ended', async (t) => {
  const { registry, image, directory } = await prepare(t);
  const { half } = leaveHalf(directory);
  const { result, events } = await copy(image, layout(directory));
  assert.deepEqual(warnings(events), []);
  assert.equal(result.resumedBytes, LAYER.length - half);
  const asks = layerAsks(registry).filter(({ path }) => path.endsWith(LAYER_DIGEST));
  assert.equal(askedBytes(asks), half);
  assert.ok(provenBlobs(directory).includes(LAYER_DIGEST.slice(7)));
});

test('what an earlier copy left and is wrong is fetched again', async (t) => {
  const { registry, image, directory } = await prepare(t);
  const { half } = leaveHalf(directory);
  flipByte(join(directory, 'blobs', 'sha256', `${LAYER_DIGEST.slice(7)}.part`), half + 5);
  const { events } = await copy(image, layout(directory));
  assert.match(warnings(events).join(), /does not match its digest; fetching it again/);
  const asks = layerAsks(registry).filter(({ path }) => path.endsWith(LAYER_DIGEST));
  assert.equal(askedBytes(asks), half + LAYER.length);
  provenBlobs(directory);
});

test('what an earlier copy left and is wrong is not held against a mirror', async (t) => {
  const { registry, image, directory } = await prepare(t);
  const mirror = await startSandbox(t);
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const { half } = leaveHalf(directory);
  flipByte(join(directory, 'blobs', 'sha256', `${LAYER_DIGEST.slice(7)}.part`), half + 5);
  await copy(image, layout(directory));
  assert.equal(
    askedBytes(layerAsks(mirror).filter(({ path }) => path.endsWith(LAYER_DIGEST))),
    half + LAYER.length,
  );
  assert.equal(registry.requests.length, 0);
  provenBlobs(directory);
});

test('a blob of the layout that is damaged or cut is not taken for whole', async (t) => {
  const { image, directory } = await prepare(t);
  await copy(image, layout(directory));
  const path = join(directory, 'blobs', 'sha256', LAYER_DIGEST.slice(7));
  flipByte(path, 100);
  const damaged = await copy(image, layout(directory));
  assert.match(warnings(damaged.events).join(), /is damaged; fetching it again/);
  assert.equal(damaged.result.fetchedBytes, LAYER.length);
  truncateSync(path, 100);
  assert.equal((await copy(image, layout(directory))).result.fetchedBytes, LAYER.length);
  provenBlobs(directory);
});

const WRONG: FaultRule = { match: { path: LAYER_DIGEST }, action: { flipByteAt: 1000 } };

test('bytes that come wrong once are fetched once more; wrong twice, the image gets no name', async (t) => {
  const once = await prepare(t, [{ ...WRONG, match: { ...WRONG.match, nth: 1 } }]);
  const { events } = await copy(once.image, layout(once.directory));
  assert.equal(warnings(events).length, 1);
  provenBlobs(once.directory);
  const always = await prepare(t, [WRONG]);
  const { code, layer } = await failureOf(copy(always.image, layout(always.directory)));
  assert.deepEqual([code, layer], ['digest-mismatch', LAYER_DIGEST]);
  assert.equal(existsSync(join(always.directory, 'index.json')), false);
  assert.equal(existsSync(join(always.directory, 'blobs', 'sha256', LAYER_DIGEST.slice(7))), false);
});

test('a copy that is aborted ends with the reason, and no blob has its name unproven', async (t) => {
  const { image, directory } = await prepare(t, [
    { match: { path: LAYER_DIGEST }, action: { stallAfterBytes: 100 } },
  ]);
  const controller = new AbortController();
  const reason = new PullError('interrupted', 'enough');
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'planned') controller.abort(reason);
  };
  const copying = copyImage(image, { destination: layout(directory), signal: controller.signal, onEvent });
  await assert.rejects(copying, reason);
  assert.equal(existsSync(join(directory, 'index.json')), false);
  assert.equal(existsSync(join(directory, 'blobs', 'sha256', LAYER_DIGEST.slice(7))), false);
});

test('what a slow server has sent of a range is not asked of it again', async (t) => {
  const { image, directory } = await prepare(t, [
    { match: { path: LAYER_DIGEST, nth: 1 }, action: { stallAfterBytes: 100 } },
  ]);
  const journal = join(directory, 'blobs', 'sha256', `${LAYER_DIGEST.slice(7)}.part.ranges`);
  const controller = new AbortController();
  const copying = copy(image, layout(directory), { signal: controller.signal });
  const isNoted = () => existsSync(journal) && readFileSync(journal, 'latin1').split('\n').length > 2;
  const ended = failureOf(copying).then(() => 'ended' as const);
  while (!isNoted()) assert.notEqual(await Promise.race([ended, sleep(20)]), 'ended');
  controller.abort(new PullError('interrupted', 'enough'));
  await ended;
  assert.equal((await copy(image, layout(directory))).result.resumedBytes, 100);
});

test('a directory of other things does not become a layout', async (t) => {
  const { image, directory } = await prepare(t);
  mkdirSync(directory);
  writeFileSync(join(directory, 'thesis.txt'), '');
  const { code } = await failureOf(copy(image, layout(directory)));
  assert.equal(code, 'option-malformed');
  assert.deepEqual(readdirSync(directory), ['thesis.txt']);
});

test('what stands where a copy cannot end well is refused before anything is asked for, and stays', async (t) => {
  const { registry, image, directory } = await prepare(t);
  mkdirSync(join(directory, 'in'), { recursive: true });
  const file = join(directory, 'file');
  writeFileSync(file, 'mine');
  for (const destination of [
    archive(directory),
    archive('/dev/null'),
    archive(join(directory, 'none', 'x.tar')),
    layout(file),
    layout(directory),
  ])
    assert.equal((await failureOf(copy(image, destination))).code, 'option-malformed', destination.path);
  assert.deepEqual(registry.requests, []);
  assert.deepEqual(readdirSync(directory), ['file', 'in']);
  assert.deepEqual(readdirSync(join(directory, '..')), ['layout']);
});

test('an archive has the same blobs at their places, and goes on where it ended', async (t) => {
  const { registry, image, directory } = await prepare(t);
  mkdirSync(directory);
  const file = join(directory, 'image.tar');
  const { result } = await copy(image, archive(file, 'one'));
  assert.equal(result.digest, V1);
  assert.deepEqual(readdirSync(directory), ['image.tar']);
  const tar = readFileSync(file);
  const entries = [...tarEntries(sourceOf(tar))];
  const names = entries.map(({ entry }) => entry.name.toString());
  const expected = [V1.slice(7), ...blobsOf('chunked-v1')].map((hex) => `blobs/sha256/${hex}`);
  assert.deepEqual(names, ['oci-layout', 'index.json', ...expected]);
  const layer = entries.find(({ entry }) => entry.name.toString().endsWith(LAYER_DIGEST.slice(7)))!;
  const { contentStart, contentBytes } = layer;
  assert.ok(tar.subarray(contentStart, contentStart + contentBytes).equals(LAYER));
  // As a copy leaves it that was killed when all of this layer was there, and nothing else.
  const part = Buffer.alloc(tar.length);
  tar.copy(part, contentStart, contentStart, contentStart + contentBytes);
  writeFileSync(`${file}.part`, part);
  const key = `${V1} ${tar.length}`;
  writeFileSync(`${file}.part.ranges`, `${key}\n${contentStart} ${contentStart + contentBytes}\n`);
  rmSync(file);
  const before = layerAsks(registry).length;
  const again = await copy(image, archive(file, 'one'));
  assert.equal(again.result.resumedBytes, LAYER.length);
  assert.ok(
    layerAsks(registry)
      .slice(before)
      .every(({ path }) => !path.endsWith(LAYER_DIGEST)),
  );
  assert.ok(readFileSync(file).equals(tar));
});

test('a part of another archive is not taken for this one', async (t) => {
  const { image, directory } = await prepare(t);
  mkdirSync(directory);
  const file = join(directory, 'image.tar');
  writeFileSync(`${file}.part`, 'x'.repeat(10_000_000));
  writeFileSync(`${file}.part.ranges`, 'sha256:00 1\n0 1000000\n');
  const { result } = await copy(image, archive(file));
  assert.equal(result.resumedBytes, 0);
  assert.ok(statSync(file).size < 1_000_000);
});

test("a file that another program downloads to under the part's name is left alone", async (t) => {
  const { registry, image, directory } = await prepare(t);
  mkdirSync(directory);
  const file = join(directory, 'image.tar');
  writeFileSync(`${file}.part`, 'mine');
  const { code, hint } = await failureOf(copy(image, archive(file)));
  assert.deepEqual([code, hint], ['option-malformed', 'move it away, or name another file']);
  assert.deepEqual(layerAsks(registry), []);
  assert.equal(readFileSync(`${file}.part`, 'utf8'), 'mine');
  assert.deepEqual(readdirSync(directory), ['image.tar.part']);
});

for (const destination of [layout, archive]) {
  const { kind } = destination('');
  test(`a disk without room for the blobs is refused before they are asked for (${kind})`, {
    skip: skipUnlessMount(),
  }, async (t) => {
    const { registry, image } = await prepare(t);
    const path = join(smallDisk(t, 256 * 1024), 'copy');
    const error = await failureOf(copyImage(image, { destination: destination(path) }));
    assert.deepEqual([error.code, error.exitCode], ['store-full', 7]);
    assert.match(error.message, /[\d.]+ [kMG]?B are missing/);
    assert.match(error.hint ?? '', /another destination/);
    assert.deepEqual(layerAsks(registry), []);
    const left = readdirSync(join(path, '..'), { recursive: true }).filter((name) =>
      /\.part$/.test(`${name}`),
    );
    assert.deepEqual(left, [], 'where a file has no holes, its length is room');
  });
}

test('the room that files of an earlier copy have is not asked for again', {
  skip: skipUnlessMount(),
}, async (t) => {
  const { image } = await prepare(t);
  const names = blobsOf('chunked-v1');
  const sizes = names.map((name) => statSync(join(FIXTURE_LAYOUT, 'blobs/sha256', name)).size);
  const disk = smallDisk(t, sizes.reduce((sum, size) => sum + size) + 128 * 1024);
  const directory = join(disk, 'layout');
  const blobs = join(directory, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  for (const [row, name] of names.entries())
    writeFileSync(join(blobs, `${name}.part`), Buffer.alloc(sizes[row]!));
  await copy(image, layout(directory));
  assert.deepEqual(provenBlobs(directory), [...names, V1.slice(7)].sort());
});

test('a destination on a disk that is read-only is told as that', { skip: skipUnlessMount() }, async (t) => {
  const { image } = await prepare(t);
  const disk = smallDisk(t, 2 ** 20);
  makeReadOnly(disk);
  for (const destination of [layout(join(disk, 'new')), archive(join(disk, 'x.tar'))]) {
    const { code, message, hint } = await failureOf(copy(image, destination));
    assert.equal(code, 'store-denied');
    assert.match(message, /read-only \(EROFS\)$/);
    assert.match(hint ?? '', /another destination/);
  }
});

test('a policy.json that asks for signatures is a warning of a copy, a plan and an inspection, too', async (t) => {
  const { image, directory } = await prepare(t);
  const home = temporaryDirectory(t);
  mkdirSync(join(home, '.config/containers'), { recursive: true });
  writeFileSync(join(home, '.config/containers/policy.json'), '{"default":[{"type":"signedBy"}]}');
  setEnvironment(t, { HOME: home });
  const { events } = await copy(image, layout(directory), { insecurePolicy: true });
  const inspected: PullEvent[] = [];
  const onEvent = (event: PullEvent) => inspected.push(event);
  await inspectImage(image, { store: temporaryDirectory(t), insecurePolicy: true, onEvent });
  for (const told of [events, inspected].map(warnings)) {
    assert.equal(told.length, 1);
    assert.match(told[0]!, /policy\.json asks for a signature/);
  }
});
