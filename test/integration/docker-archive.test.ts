import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exportDockerArchive } from '../../src/api/export.js';
import { tarEntries } from '../../src/format/tar-entries.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { readManifest } from '../support/layout.js';
import { flipByte, packFiles } from '../support/packs.js';
import { skipUnless, skipUnlessThere } from '../support/programs.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { sourceOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';

const TAG = 'chunked-v2';
const CONFIG_DIGEST = readManifest(FIXTURE_LAYOUT, TAG).config.digest;

async function prepare(t: TestContext) {
  const registry = await startSandbox(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const image = `${registry.host}/some/image`;
  const { result } = await pull(`${image}:${TAG}`, { store, platform: 'linux/amd64' });
  return { store, image, result, digest: result.digest, directory, file: join(directory, 'docker.tar') };
}

/** The files of an archive by name. */
function read(file: string): Map<string, Buffer> {
  const tar = readFileSync(file);
  const members = [...tarEntries(sourceOf(tar))];
  return new Map(
    members.map(({ entry, contentStart, contentBytes }) => [
      entry.name.toString(),
      tar.subarray(contentStart, contentStart + contentBytes),
    ]),
  );
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function manifestOf(files: Map<string, Buffer>): { Config: string; RepoTags: string[]; Layers: string[] } {
  const [manifest, ...others] = JSON.parse(files.get('manifest.json')!.toString());
  assert.deepEqual(others, []);
  return manifest;
}

test('the archive has the config under its digest and each layer under its DiffID', async (t) => {
  const { store, image, result, digest, file } = await prepare(t);
  await exportDockerArchive({ store, digest, reference: `${image}:${TAG}`, file });
  const files = read(file);
  const { Config, RepoTags, Layers } = manifestOf(files);
  assert.equal(Config, `${CONFIG_DIGEST.slice(7)}.json`);
  assert.equal(sha256(files.get(Config)!), CONFIG_DIGEST);
  assert.deepEqual(RepoTags, [`${image}:${TAG}`]);
  assert.deepEqual(
    Layers.map((name) => sha256(files.get(name)!)),
    result.layers.map(({ diffId }) => diffId),
  );
  assert.equal(files.size, 2 + Layers.length);
});

test('an image without a tag is latest, one named by digest has none', async (t) => {
  const { store, image, digest, directory } = await prepare(t);
  for (const [reference, tags] of [
    [image, [`${image}:latest`]],
    ['alpine', ['alpine:latest']],
    ['docker://alpine', ['alpine:latest']],
    [`docker://${image}:${TAG}`, [`${image}:${TAG}`]],
    [`${image}@${digest}`, []],
  ] as const) {
    const file = join(directory, 'tagged.tar');
    await exportDockerArchive({ store, digest, reference, file });
    assert.deepEqual(manifestOf(read(file)).RepoTags, tags);
  }
});

test('skopeo reads the archive and finds the same image ID and layers', {
  skip: skipUnless('skopeo'),
}, async (t) => {
  const { store, image, result, digest, directory, file } = await prepare(t);
  await exportDockerArchive({ store, digest, reference: `${image}:${TAG}`, file });
  const copied = join(directory, 'copied');
  execFileSync('skopeo', ['--insecure-policy', 'copy', '--quiet', `docker-archive:${file}`, `dir:${copied}`]);
  const manifest = JSON.parse(readFileSync(join(copied, 'manifest.json'), 'utf8')) as {
    config: { digest: string };
    layers: Array<{ digest: string }>;
  };
  assert.equal(manifest.config.digest, CONFIG_DIGEST);
  assert.deepEqual(
    manifest.layers.map((layer) => layer.digest),
    result.layers.map(({ diffId }) => diffId),
  );
});

test('crane finds the archive well-formed', { skip: skipUnlessThere('crane') }, async (t) => {
  const { store, image, digest, file } = await prepare(t);
  await exportDockerArchive({ store, digest, reference: `${image}:${TAG}`, file });
  const told = execFileSync('crane', ['validate', '--tarball', file], { encoding: 'utf8', stdio: 'pipe' });
  assert.equal(told.trim(), `PASS: ${file}`);
});

test('podman loads the archive, under its tag and with the same image ID', {
  skip: skipUnlessThere('podman') || (process.getuid?.() === 0 ? false : 'needs root'),
}, async (t) => {
  const { store, image, digest, directory, file } = await prepare(t);
  await exportDockerArchive({ store, digest, reference: `${image}:${TAG}`, file });
  const places = ['--root', join(directory, 'root'), '--runroot', join(directory, 'run')];
  const podman = (...args: string[]) =>
    execFileSync('podman', [...places, '--storage-driver', 'vfs', ...args], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
  assert.equal(podman('load', '--quiet', '--input', file).trim(), `Loaded image: ${image}:${TAG}`);
  assert.equal(podman('inspect', '--format', '{{.Id}}', `${image}:${TAG}`).trim(), CONFIG_DIGEST.slice(7));
});

test('damaged bytes leave no archive, and what was there stays', async (t) => {
  const { store, image, digest, directory, file } = await prepare(t);
  writeFileSync(file, 'from before');
  const [pack = ''] = packFiles(store, '.pack');
  flipByte(pack, Math.floor(statSync(pack).size / 2));
  const { code } = await failureOf(exportDockerArchive({ store, digest, reference: image, file }));
  assert.equal(code, 'digest-mismatch');
  assert.deepEqual(
    [readdirSync(directory).sort(), readFileSync(file, 'utf8')],
    [['docker.tar', 'store'], 'from before'],
  );
});
