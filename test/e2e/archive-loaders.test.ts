import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { tarEntries } from '../../src/format/tar-entries.js';
import { clientOf, NOTHING, skipUnlessRoot, startContainerd, startDockerd } from '../support/daemons.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { readConfig, readManifest } from '../support/layout.js';
import { OPTIONAL, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { sourceOf } from '../support/tars.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

const TAG = 'chunked-v2';
const MANIFEST = readManifest(FIXTURE_LAYOUT, TAG);
const CONFIG = readConfig(FIXTURE_LAYOUT, MANIFEST);
const CONFIG_DIGEST = MANIFEST.config.digest;
const COPY = 'example.com/some/copy:v2';

/** An image in a registry, and what the command prints of it. */
async function prepare(t: Lifetime) {
  const registry = await startSandbox(t);
  const directory = temporaryDirectory(t);
  const env = { ...process.env, ZPULL_STORE: join(directory, 'store') };
  const zpull = async (...args: string[]): Promise<Buffer> => {
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const child = spawn(process.execPath, [...ZPULL, ...args, '-q'], { env, stdio: [...stdio] });
    const exit = once(child, 'close');
    const stdout = await buffer(child.stdout!);
    assert.deepEqual(await exit, [0, null]);
    return stdout;
  };
  return { image: `${registry.host}/some/image:${TAG}`, directory, zpull };
}

test('podman loads both archives from a pipe', { skip: skipUnlessRoot('podman') }, async (t) => {
  const { zpull, image, directory } = await prepare(t);
  const places = ['--root', join(directory, 'root'), '--runroot', join(directory, 'run')];
  const podman = clientOf('podman', [...places, '--storage-driver', 'vfs']);
  const docker = await zpull('export', image, 'docker-archive:-');
  assert.equal(`${podman(docker, 'load', '--quiet')}`.trim(), `Loaded image: ${image}`);
  const oci = await zpull('copy', image, `oci-archive:-:${COPY}`);
  assert.equal(`${podman(oci, 'load', '--quiet')}`.trim(), `Loaded image: ${COPY}`);
  const [inspected] = JSON.parse(podman(NOTHING, 'inspect', image).toString());
  assert.equal(`sha256:${inspected.Id}`, CONFIG_DIGEST);
  assert.deepEqual(inspected.RootFS.Layers, CONFIG.rootfs.diff_ids);
});

test('containerd imports both archives from a pipe', {
  skip: skipUnlessRoot('containerd', 'ctr'),
}, async (t) => {
  const { zpull, image } = await prepare(t);
  const ctr = (await startContainerd(t))?.client;
  if (ctr === undefined) return t.skip(`${OPTIONAL}containerd does not start here`);
  for (const archive of [
    await zpull('copy', image, `oci-archive:-:${COPY}`),
    await zpull('export', image, 'docker-archive:-'),
  ])
    ctr(archive, 'images', 'import', '--no-unpack', '-');
  const listed = ctr(NOTHING, 'images', 'ls', '-q').toString().trim().split('\n').sort();
  assert.deepEqual(listed, [image, COPY].sort());
  assert.match(ctr(NOTHING, 'content', 'ls', '-q').toString(), new RegExp(CONFIG_DIGEST));
});

test('docker loads the archive from a pipe, and saves the same config and layers', {
  skip: skipUnlessRoot('dockerd', 'docker', 'containerd'),
}, async (t) => {
  const { zpull, image } = await prepare(t);
  const starting = startDockerd(t);
  const archive = await zpull('export', image, 'docker-archive:-');
  const docker = (await starting)?.client;
  if (docker === undefined) return t.skip(`${OPTIONAL}dockerd does not start here`);
  const loaded = docker(archive, 'load', '--quiet');
  assert.equal(`${loaded}`.trim(), `Loaded image: ${image}`);
  const [inspected] = JSON.parse(docker(NOTHING, 'image', 'inspect', image).toString());
  assert.deepEqual(inspected.RootFS.Layers, CONFIG.rootfs.diff_ids);

  const saved = filesIn(docker(NOTHING, 'save', image));
  const [manifest] = JSON.parse(saved.get('manifest.json')!.toString());
  assert.deepEqual(manifest.RepoTags, [image]);
  const digestOf = (name: string) => sha256(saved.get(name)!);
  assert.equal(digestOf(manifest.Config), CONFIG_DIGEST);
  assert.deepEqual(manifest.Layers.map(digestOf), CONFIG.rootfs.diff_ids);
});

/** The files of an archive by name. */
function filesIn(archive: Buffer): Map<string, Buffer> {
  const members = [...tarEntries(sourceOf(archive))];
  return new Map(
    members.map(({ entry, contentStart, contentBytes }) => [
      entry.name.toString(),
      archive.subarray(contentStart, contentStart + contentBytes),
    ]),
  );
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
