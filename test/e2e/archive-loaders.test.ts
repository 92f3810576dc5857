import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tarEntries } from '../../src/format/tar-entries.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { readConfig, readManifest } from '../support/layout.js';
import { OPTIONAL, skipUnlessThere, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { sourceOf } from '../support/tars.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

const TAG = 'chunked-v2';
const MANIFEST = readManifest(FIXTURE_LAYOUT, TAG);
const CONFIG = readConfig(FIXTURE_LAYOUT, MANIFEST);
const CONFIG_DIGEST = MANIFEST.config.digest;
const COPY = 'example.com/some/copy:v2';

/** These programs load images into a place of their own, which takes root. */
function skipUnlessRoot(...programs: readonly string[]): string | false {
  return skipUnlessThere(...programs) || (process.getuid?.() === 0 ? false : `${OPTIONAL}needs root`);
}

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

/** Runs a client of a daemon with this on its standard input; what it prints. */
type Client = (input: Buffer, ...args: string[]) => Buffer;

const NOTHING = Buffer.alloc(0);

/** Daemons answer after a second, or not at all. */
const MAX_START_MS = 60_000;

function clientOf(program: string, options: readonly string[]): Client {
  return (input, ...args) =>
    execFileSync(program, [...options, ...args], { input, stdio: 'pipe', maxBuffer: 64 * 2 ** 20 });
}

/**
 * A client of a daemon that has all its files in a directory of its own, and ends with the test. Undefined when the daemon ends before it
 * answers, or never does: it lacks something that it needs of this system.
 */
async function startDaemon(
  t: TestContext,
  program: string,
  argumentsIn: (place: string) => readonly string[],
  connect: (place: string) => Client,
): Promise<Client | undefined> {
  const place = mkdtempSync(join(tmpdir(), 'zpull-test-'));
  const daemon = spawn(program, argumentsIn(place), { stdio: 'ignore' });
  const ended = once(daemon, 'close');
  // It writes there until it has ended.
  t.after(async () => {
    daemon.kill();
    await ended;
    rmSync(place, { recursive: true });
  });
  const client = connect(place);
  for (const startedMs = Date.now(); Date.now() - startedMs < MAX_START_MS && daemon.exitCode === null; ) {
    if (answers(client)) return client;
    await sleep(100);
  }
  return undefined;
}

function answers(client: Client): boolean {
  try {
    client(NOTHING, 'version');
    return true;
  } catch {
    return false;
  }
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
  const ctr = await startDaemon(t, 'containerd', containerdArguments, (place) =>
    clientOf('ctr', ['--address', join(place, 'socket')]),
  );
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

function containerdArguments(place: string): string[] {
  const config = join(place, 'containerd.toml');
  const lines = [
    'version = 2',
    `root = "${place}/root"`,
    `state = "${place}/state"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
    `[grpc]\naddress = "${place}/socket"`,
    `[ttrpc]\naddress = "${place}/ttrpc"`,
  ];
  writeFileSync(config, lines.join('\n'));
  return ['--config', config];
}

test('docker loads the archive from a pipe, and saves the same config and layers', {
  skip: skipUnlessRoot('dockerd', 'docker', 'containerd'),
}, async (t) => {
  const { zpull, image } = await prepare(t);
  const starting = startDaemon(t, 'dockerd', dockerdArguments, (place) =>
    clientOf('docker', ['--config', join(place, 'client'), '--host', `unix://${place}/socket`]),
  );
  const archive = await zpull('export', image, 'docker-archive:-');
  const docker = await starting;
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

/** Without a network, which loading needs none of and which could change that of this machine. */
function dockerdArguments(place: string): string[] {
  const config = join(place, 'daemon.json');
  // In place of the machine's own.
  writeFileSync(config, '{}');
  const noNetwork = ['--bridge=none', '--iptables=false', '--ip6tables=false', '--ip-forward=false'];
  return [
    ...noNetwork,
    `--config-file=${config}`,
    `--data-root=${place}/data`,
    `--exec-root=${place}/exec`,
    `--pidfile=${place}/pid`,
    `--host=unix://${place}/socket`,
    // Mounts nothing.
    '--storage-driver=vfs',
  ];
}

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
