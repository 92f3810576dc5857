import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { exportDockerArchive } from '../../src/api/export.js';
import { inspectImage, pullImage } from '../../src/api/pull.js';
import { listStore, removeImage } from '../../src/api/store.js';
import { TAR_END } from '../../src/format/tar-writer.js';
import { setEnvironment } from '../support/environment.js';
import {
  DIALECT_LAYOUT,
  FIXTURE_LAYOUT,
  FORMATS_LAYOUT,
  LAYER_DIGEST,
  MANIFEST_DIGEST,
} from '../support/fixture-layout.js';
import {
  addLayer,
  changeImage,
  emptyLayout,
  fixtureCopy,
  nameImage,
  readConfig,
  readManifest,
  tarOf,
} from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { plant } from '../support/planted.js';
import { skipUnless } from '../support/programs.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { answerRange, startServer } from '../support/scripted-server.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

const TAG = 'chunked-v1';
const BLOB = `blobs/sha256/${LAYER_DIGEST.slice(7)}`;

function optionsFor(t: Lifetime) {
  return { store: join(temporaryDirectory(t), 'store'), platform: 'linux/amd64', workers: 1 };
}

/** An image of one small layer that is one stream, which takes little to pull. */
async function smallLayout(t: Lifetime, content = 'bytes'): Promise<string> {
  const layout = emptyLayout(t);
  await nameSmall(layout, 'v1', content);
  return layout;
}

async function nameSmall(layout: string, tag: string, content: string): Promise<string> {
  const tar = tarOf({ file: Buffer.from(content) });
  const plain = await addLayer(layout, tar, '');
  const layer = await addLayer(layout, tar, '+gzip');
  return nameImage(layout, tag, [layer], [plain.digest]).digest;
}

/** The layout as a tar, written by GNU tar: its names begin with `./`. */
function tarUp(t: Lifetime, layout: string, ...names: readonly string[]): string {
  const file = join(temporaryDirectory(t), 'layout.tar');
  execFileSync('tar', [
    '--create',
    `--file=${file}`,
    `--directory=${layout}`,
    ...(names.length > 0 ? names : ['.']),
  ]);
  return file;
}

test('images of every format come from a layout and from an archive, proven, with the same figures', async (t) => {
  const archives = new Map([DIALECT_LAYOUT, FORMATS_LAYOUT].map((layout) => [layout, tarUp(t, layout)]));
  for (const [layout, tag] of [
    [DIALECT_LAYOUT, 'estargz'],
    [DIALECT_LAYOUT, 'nerdctl'],
    [DIALECT_LAYOUT, 'old'],
    [FORMATS_LAYOUT, 'zstd'],
    [FORMATS_LAYOUT, 'index'],
  ] as const) {
    const [fromLayout, fromArchive] = await Promise.all([
      pullImage(`oci:${layout}:${tag}`, optionsFor(t)),
      pullImage(`oci-archive:${archives.get(layout)}:${tag}`, optionsFor(t)),
    ]);
    assertProven(fromLayout);
    assertProven(fromArchive);
    const { fetchedBytes, requests } = fromLayout;
    assert.ok(fetchedBytes > 0 && requests > 0, tag);
    assert.deepEqual([fromArchive.fetchedBytes, fromArchive.digest], [fetchedBytes, fromLayout.digest], tag);
  }
});

test('a plan is made from a layout without its contents, and a second image fetches what it lacks', async (t) => {
  const options = optionsFor(t);
  const inspected = await inspectImage(`oci:${FIXTURE_LAYOUT}:${TAG}`, options);
  assert.equal(inspected.digest, MANIFEST_DIGEST);
  await pullImage(`oci:${FIXTURE_LAYOUT}:${TAG}`, options);
  const second = await pullImage(`oci:${FIXTURE_LAYOUT}:chunked-v2`, options);
  assert.ok(second.reusedBytes > second.fetchedBytes);
  assertProven(second);
});

test('a copy of a layout has its bytes, from a layout or an archive', async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'copy.tar');
  const layout = join(directory, 'layout');
  const options = { platform: 'linux/amd64', workers: 1 };
  const first = await copyImage(`oci:${FIXTURE_LAYOUT}:${TAG}`, {
    ...options,
    destination: { kind: 'archive', path: file },
  });
  const second = await copyImage(`oci-archive:${file}`, {
    ...options,
    destination: { kind: 'layout', path: layout },
  });
  assert.deepEqual([first.digest, second.digest], [MANIFEST_DIGEST, MANIFEST_DIGEST]);
  assert.ok(readFileSync(join(layout, BLOB)).equals(readFileSync(join(FIXTURE_LAYOUT, BLOB))));
});

test('an image is found by tag, by digest, or as the only one; else the tags are listed', async (t) => {
  const layout = await smallLayout(t);
  const first = readManifest(layout, 'v1');
  const options = optionsFor(t);
  const only = await pullImage(`oci:${layout}`, options);
  const other = await nameSmall(layout, 'v2', 'other bytes');
  assert.equal((await pullImage(`oci:${layout}@${other}`, options)).digest, other);
  assert.equal((await pullImage(`oci:${layout}:v1`, options)).digest, only.digest);
  assert.equal(readConfig(layout, first).os, 'linux');
  for (const [name, code, hint] of [
    ['', 'reference-malformed', 'its tags are v1, v2'],
    [':v3', 'image-not-found', 'its tags are v1, v2'],
    [`@sha256:${'0'.repeat(64)}`, 'blob-not-found', 'incomplete'],
  ] as const) {
    const failure = await failureOf(pullImage(`oci:${layout}${name}`, options));
    assert.equal(failure.code, code);
    assert.ok(failure.hint.includes(hint), failure.hint);
  }
  const listed = await listStore({ store: options.store });
  assert.deepEqual(
    listed.images.map(({ image }) => image),
    [`oci:${layout}`, `oci:${layout}:v1`, `oci:${layout}@${other}`],
  );
  await removeImage({ store: options.store, image: `oci:${relative(process.cwd(), layout)}:v1` });
  assert.equal((await listStore({ store: options.store })).images.length, 2);
});

test('a tag that moved is seen whatever the policy, unless it is never', async (t) => {
  const layout = await smallLayout(t);
  const options = { ...optionsFor(t), policy: 'missing' as const };
  const before = await pullImage(`oci:${layout}:v1`, options);
  rmSync(join(layout, 'index.json'));
  const moved = await nameSmallAnew(layout);
  assert.equal((await pullImage(`oci:${layout}:v1`, { ...options, policy: 'never' })).digest, before.digest);
  assert.equal((await pullImage(`oci:${layout}:v1`, options)).digest, moved);
});

async function nameSmallAnew(layout: string): Promise<string> {
  writeFileSync(join(layout, 'index.json'), '{"schemaVersion":2,"manifests":[]}');
  return nameSmall(layout, 'v1', 'new bytes');
}

test('no link, pipe or large file in a layout is read', { skip: skipUnless('mkfifo') }, async (t) => {
  const secret = join(temporaryDirectory(t), 'secret');
  writeFileSync(secret, readFileSync(join(FIXTURE_LAYOUT, BLOB)));
  const layout = fixtureCopy(t);
  const manifest = join(layout, 'blobs', MANIFEST_DIGEST.replace(':', '/'));
  for (const place of [join(layout, BLOB), manifest, join(layout, 'index.json')]) {
    const kept = `${place}.kept`;
    renameSync(place, kept);
    for (const kind of ['link', 'fifo', 'directory', 'huge'] as const) {
      plant(kind, [place], secret);
      const destination = { kind: 'archive', path: join(layout, 'copy.tar') } as const;
      for (const attempt of [
        () => pullImage(`oci:${layout}:${TAG}`, optionsFor(t)),
        () => copyImage(`oci:${layout}:${TAG}`, { platform: 'linux/amd64', workers: 1, destination }),
      ])
        assert.equal((await failureOf(attempt())).code, 'metadata-malformed', `${place} ${kind}`);
    }
    rmSync(place, { recursive: true });
    renameSync(kept, place);
  }
  for (const name of ['blobs/sha256', 'blobs']) {
    const moved = join(layout, '..', `${name.replace('/', '-')}-${process.pid}`);
    renameSync(join(layout, name), moved);
    t.after(() => rmSync(moved, { recursive: true, force: true }));
    symlinkSync(moved, join(layout, name));
    const { code } = await failureOf(pullImage(`oci:${layout}:${TAG}`, optionsFor(t)));
    assert.equal(code, 'metadata-malformed', name);
    rmSync(join(layout, name));
    renameSync(moved, join(layout, name));
  }
});

test('bytes that are false or cut off end with 6, and the hint is about the layout', async (t) => {
  const layout = fixtureCopy(t);
  const blob = join(layout, BLOB);
  flipByte(blob, 100);
  const archive = tarUp(t, layout);
  for (const image of [`oci:${layout}:${TAG}`, `oci-archive:${archive}:${TAG}`]) {
    const failure = await failureOf(pullImage(image, optionsFor(t)));
    assert.deepEqual(
      [failure.code, /is damaged: write the layout again/.test(failure.hint)],
      ['digest-mismatch', true],
      failure.hint,
    );
  }
  truncateSync(blob, 1000);
  assert.equal(
    (await failureOf(pullImage(`oci:${layout}:${TAG}`, optionsFor(t)))).code,
    'metadata-malformed',
  );
  rmSync(blob);
  assert.equal((await failureOf(pullImage(`oci:${layout}:${TAG}`, optionsFor(t)))).code, 'blob-not-found');
});

test('a config with the DiffID of another tar ends with 6, and neither the layout nor a registry is blamed', async (t) => {
  const chunked = fixtureCopy(t);
  const small = await smallLayout(t);
  for (const [layout, tag] of [
    [chunked, TAG],
    [small, 'v1'],
  ] as const) {
    changeImage(layout, tag, (_manifest, { rootfs }) =>
      rootfs.diff_ids.reverse().unshift(`sha256:${'1'.repeat(64)}`),
    );
    changeImage(layout, tag, (_manifest, { rootfs }) => rootfs.diff_ids.pop());
    const { code, message, hint } = await failureOf(pullImage(`oci:${layout}:${tag}`, optionsFor(t)));
    assert.deepEqual([code, /does not match its DiffID/.test(message)], ['digest-mismatch', true], message);
    assert.match(hint, /the config states the DiffID of another tar/);
  }
});

test('a foreign layer of a layout that comes with other bytes is blamed on the host that sent them', async (t) => {
  const layout = await smallLayout(t);
  const host = await startServer((request, response) => answerRange(request, response, Buffer.from('other')));
  t.after(() => host.close());
  changeImage(layout, 'v1', (manifest) => {
    const layer = manifest.layers[0]!;
    layer.mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
    layer.size = 5;
    layer.urls = [`${host.origin}/layer`];
  });
  const destination = { kind: 'layout', path: join(temporaryDirectory(t), 'copy') } as const;
  const options = { ...optionsFor(t), allowForeign: true };
  for (const failing of [
    () => pullImage(`oci:${layout}:v1`, options),
    () => copyImage(`oci:${layout}:v1`, { ...options, destination }),
  ]) {
    const { code, hint } = await failureOf(failing());
    assert.equal(code, 'digest-mismatch');
    assert.ok(hint.startsWith(`${host.host} has other bytes`), hint);
  }
});

test('archives that are none, compressed, cut off or ambiguous are refused', async (t) => {
  const layout = await smallLayout(t);
  const good = tarUp(t, layout);
  const directory = temporaryDirectory(t);
  const file = join(directory, 'bad.tar');
  const index = readFileSync(join(layout, 'index.json'));
  const twice = tarOf({ 'index.json': index, './index.json': index });
  const whole = readFileSync(good);
  for (const [bytes, code] of [
    [twice, 'metadata-malformed'],
    [Buffer.from('no tar, but long enough to be one'.repeat(50)), 'metadata-malformed'],
    [whole.subarray(0, whole.indexOf('schemaVersion')), 'metadata-malformed'],
    [TAR_END, 'option-malformed'],
    [Buffer.alloc(0), 'option-malformed'],
    [execFileSync('gzip', ['--stdout', good]), 'unsupported'],
  ] as const) {
    writeFileSync(file, bytes);
    const failure = await failureOf(pullImage(`oci-archive:${file}`, optionsFor(t)));
    assert.equal(failure.code, code, `${bytes.length} bytes: ${failure.message}`);
  }
  symlinkSync('nowhere', join(directory, 'link'));
  for (const [image, code] of [
    [`oci-archive:${directory}`, 'option-malformed'],
    [`oci-archive:${directory}/none`, 'image-not-found'],
    [`oci-archive:${directory}/link`, 'image-not-found'],
    [`oci:${file}/none`, 'image-not-found'],
    ['oci-archive:/dev/null', 'option-malformed'],
    [`oci:${good}`, 'option-malformed'],
    [`oci:${directory}`, 'option-malformed'],
  ] as const)
    assert.equal((await failureOf(pullImage(image, optionsFor(t)))).code, code, image);
});

test('links in an archive are no files of its layout', async (t) => {
  const layout = fixtureCopy(t);
  rmSync(join(layout, BLOB));
  symlinkSync(join(FIXTURE_LAYOUT, BLOB), join(layout, BLOB));
  const failure = await failureOf(pullImage(`oci-archive:${tarUp(t, layout)}:${TAG}`, optionsFor(t)));
  assert.equal(failure.code, 'blob-not-found');
});

test('policy.json holds for layouts, by transport and path', async (t) => {
  const layout = await smallLayout(t);
  const home = temporaryDirectory(t);
  mkdirSync(join(home, '.config/containers'), { recursive: true });
  const accept = [{ type: 'insecureAcceptAnything' }];
  const reject = [{ type: 'reject' }];
  setEnvironment(t, { HOME: home });
  for (const [transports, code] of [
    [{ docker: { '': accept } }, 'policy-rejected'],
    [{ oci: { '': accept } }, undefined],
    [{ oci: { '': accept, [join(layout, '..')]: reject } }, 'policy-rejected'],
    [{ 'oci-archive': { '': accept } }, 'policy-rejected'],
  ] as const) {
    writeFileSync(
      join(home, '.config/containers/policy.json'),
      JSON.stringify({ default: reject, transports }),
    );
    const pulling = pullImage(`oci:${layout}:v1`, optionsFor(t));
    if (code === undefined) await pulling;
    else assert.equal((await failureOf(pulling)).code, code);
  }
});

test('the archive for docker has the tag of a layout that is the name of an image', async (t) => {
  const layout = await smallLayout(t);
  const options = optionsFor(t);
  await nameSmall(layout, 'example.com/app:v2', 'bytes');
  const file = join(temporaryDirectory(t), 'docker.tar');
  for (const [tag, tags] of [
    ['v1', []],
    ['example.com/app:v2', ['example.com/app:v2']],
  ] as const) {
    const reference = `oci:${layout}:${tag}`;
    const { result } = await pull(reference, options);
    await exportDockerArchive({ store: options.store, digest: result.digest, reference, file });
    const manifest = execFileSync('tar', ['--extract', `--file=${file}`, '--to-stdout', 'manifest.json'], {
      encoding: 'utf8',
    });
    assert.deepEqual((JSON.parse(manifest) as Array<{ RepoTags: string[] }>)[0]!.RepoTags, tags);
  }
});

test('a foreign layer of a layout is left where it lies', async (t) => {
  const layout = fixtureCopy(t);
  changeImage(layout, TAG, (manifest) => {
    const layer = manifest.layers[0]!;
    layer.mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
    layer.urls = ['https://registry.invalid/layer'];
  });
  const { code } = await failureOf(pullImage(`oci:${layout}:${TAG}`, optionsFor(t)));
  assert.equal(code, 'unsupported');
});

test('what skopeo writes is read', { skip: skipUnless('skopeo') }, async (t) => {
  const file = join(temporaryDirectory(t), 'skopeo.tar');
  execFileSync(
    'skopeo',
    ['copy', '--quiet', `oci:${FORMATS_LAYOUT}:gzip`, `oci-archive:${file}:some/name:tag`],
    { stdio: 'pipe' },
  );
  assertProven(await pullImage(`oci-archive:${file}:some/name:tag`, optionsFor(t)));
});
