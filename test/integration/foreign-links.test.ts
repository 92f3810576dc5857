import assert from 'node:assert/strict';
import { chmodSync, existsSync, lchownSync, lstatSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { checkCopyDestination, copyImage } from '../../src/api/copy.js';
import type { PullError } from '../../src/api/errors.js';
import { exportDockerArchive, exportLayers, exportRootfs, exportTar } from '../../src/api/export.js';
import { checkDestination } from '../../src/api/export-schemes.js';
import { openStore } from '../../src/store/paths.js';
import { exportUnderAttack, MALLORY, makeSecrets, makeTheirs, stateOf } from '../support/attack.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const isRootOnLinux = process.platform === 'linux' && process.getuid?.() === 0;
const skip = !isRootOnLinux && 'needs root on Linux, to be attacked by another user';

const TAG = 'chunked-v2';

/** An image in a store, what each kind of destination is written by, and as a job for a process of its own. */
async function prepare(t: TestContext) {
  const { host } = await startSandbox(t);
  const reference = `${host}/some/image:${TAG}`;
  const store = join(temporaryDirectory(t), 'store');
  const { result } = await pull(reference, { store, platform: 'linux/amd64' });
  const { digest } = result;
  const common = { store, diffIds: result.layers.map(({ diffId }) => diffId) };
  const layout = (path: string) => ({ kind: 'layout', path, tag: 't' }) as const;
  const archive = (path: string) => ({ kind: 'archive', path, tag: 't' }) as const;
  const copy = { platform: 'linux/amd64' } as const;
  const write = {
    rootfs: (directory: string) => exportRootfs({ ...common, directory }),
    'rootfs with --force': (directory: string) => exportRootfs({ ...common, directory, force: true }),
    layers: (directory: string) => exportLayers({ ...common, directory }),
    tar: (file: string) => exportTar({ ...common, file }),
    'docker-archive': (file: string) => exportDockerArchive({ store, digest, reference, file }),
    oci: (path: string) => copyImage(reference, { ...copy, destination: layout(path) }),
    'oci-archive': (path: string) => copyImage(reference, { ...copy, destination: archive(path) }),
  } as const;
  const check = {
    rootfs: (path: string) => checkDestination('rootfs', path, false),
    'rootfs with --force': (path: string) => checkDestination('rootfs', path, true),
    layers: (path: string) => checkDestination('layers', path, false),
    tar: (path: string) => checkDestination('tar', path, false),
    'docker-archive': (path: string) => checkDestination('docker-archive', path, false),
    oci: (path: string) => checkCopyDestination(layout(path)),
    'oci-archive': (path: string) => checkCopyDestination(archive(path)),
  } as const;
  const job = {
    rootfs: (directory: string) => ({ kind: 'rootfs', ...common, directory }),
    'rootfs with --force': (directory: string) => ({ kind: 'rootfs', ...common, directory, force: true }),
    layers: (directory: string) => ({ kind: 'layers', ...common, directory }),
    tar: (file: string) => ({ kind: 'tar', ...common, file }),
    'docker-archive': (file: string) => ({ kind: 'docker-archive', store, digest, reference, file }),
    oci: (path: string) => ({ kind: 'copy', reference, ...copy, destination: layout(path) }),
    'oci-archive': (path: string) => ({ kind: 'copy', reference, ...copy, destination: archive(path) }),
  } as const;
  return { write, check, job };
}

const KINDS = [
  'rootfs',
  'rootfs with --force',
  'layers',
  'tar',
  'docker-archive',
  'oci',
  'oci-archive',
] as const;
const DIRECTORY_KINDS: readonly string[] = ['rootfs', 'rootfs with --force', 'layers', 'oci'];

/** Directories of root, `outside` with secrets and `empty`, and `theirs` of another user. */
function ground(t: TestContext) {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const [outside, empty, theirs] = ['outside', 'empty', 'theirs'].map((name) => join(directory, name));
  makeSecrets(outside!);
  mkdirSync(empty!, { mode: 0o700 });
  makeTheirs(theirs!);
  return { directory, outside: outside!, empty: empty!, theirs: theirs! };
}

type Ground = ReturnType<typeof ground>;

function link(path: string, target: string, uid = MALLORY): void {
  symlinkSync(target, path);
  lchownSync(path, uid, uid);
}

interface Form {
  readonly what: string;
  /** Makes it; returns the destination. */
  readonly plant: (ground: Ground) => string;
  /** Only a directory can be the destination. */
  readonly isDirectory?: true;
}

const FORMS: readonly Form[] = [
  {
    what: 'a link above to a directory of root',
    plant: ({ theirs, outside }) => {
      link(join(theirs, 'p'), outside);
      return join(theirs, 'p/new');
    },
  },
  {
    what: 'a relative link above, by way of another',
    plant: ({ theirs }) => {
      link(join(theirs, 'q'), '../outside/./sub');
      link(join(theirs, 'p'), 'q/..');
      return join(theirs, 'p/new');
    },
  },
  {
    what: 'a link above, and directories that are not there',
    plant: ({ theirs, outside }) => {
      mkdirSync(join(outside, 'deep'));
      link(join(theirs, 'p'), outside);
      return join(theirs, 'p/deep/new');
    },
  },
  {
    what: 'a link above to what is not there',
    plant: ({ theirs }) => {
      link(join(theirs, 'p'), '../outside/none');
      return join(theirs, 'p/new');
    },
  },
  {
    what: 'a link of root by way of theirs',
    plant: ({ directory, theirs, outside }) => {
      link(join(theirs, 'p'), outside);
      link(join(directory, 'r'), 'theirs/p', 0);
      return join(directory, 'r/new');
    },
  },
  {
    what: 'a link of root out of where theirs leads',
    plant: ({ directory, theirs, outside }) => {
      makeTheirs(join(outside, 'home'));
      link(join(theirs, 'p'), join(outside, 'home'));
      link(join(directory, 'r'), 'theirs/p/..', 0);
      return join(directory, 'r/new');
    },
  },
  {
    what: 'a link of root in a directory that theirs leads out of',
    plant: ({ theirs }) => {
      link(join(theirs, 'r'), '../outside', 0);
      link(join(theirs, 'p'), 'r');
      return join(theirs, 'p/new');
    },
  },
  {
    what: 'a link itself, to a full directory of root',
    plant: ({ theirs, outside }) => {
      link(join(theirs, 'p'), outside);
      return join(theirs, 'p');
    },
    isDirectory: true,
  },
  {
    what: 'a link itself, to an empty directory of root',
    plant: ({ theirs }) => {
      link(join(theirs, 'p'), '../empty');
      return join(theirs, 'p/');
    },
    isDirectory: true,
  },
  {
    what: 'a link itself, to what is not there in a directory of root',
    plant: ({ theirs }) => {
      link(join(theirs, 'p'), '../empty/none');
      return join(theirs, 'p');
    },
    isDirectory: true,
  },
];

const RACES: readonly Race[] = [
  ['rootfs with --force', 'p', 'openSync', 'p'],
  ['layers', 'p/new', 'mkdirSync', 'new'],
  ['tar', 'p/new', 'openSync', 'p'],
  ['oci', 'p/new', 'mkdirSync', 'new'],
  ['oci', 'p/new', 'openSync', 'index.json'],
  ['oci-archive', 'p/new', 'mkdirSync', 'new.part.lock'],
];

test('who may lead a destination elsewhere by a link', { skip }, async (t) => {
  const image = await prepare(t);
  for (const form of FORMS)
    await t.test(`not another user, to where they own nothing: ${form.what}`, (t) =>
      isRefused(t, image, form),
    );
  await t.test('not another user, to a device of root', async (t) => {
    const { theirs } = ground(t);
    link(join(theirs, 'x'), '/dev/null');
    const refused = { code: 'option-malformed', message: /link \S+\/theirs\/x of user/ };
    await assert.rejects(image.write.tar(join(theirs, 'x')), refused);
  });
  await t.test('nobody, in a loop', async (t) => {
    const { theirs } = ground(t);
    link(join(theirs, 'p'), 'q/x');
    link(join(theirs, 'q'), 'p');
    for (const kind of KINDS) {
      const refused = { code: 'store-broken', message: /ELOOP/ };
      await assert.rejects(image.write[kind](join(theirs, 'p/new')), refused);
    }
  });
  for (const kind of KINDS)
    await t.test(`root, and another user to what is theirs: ${kind}`, (t) => isFollowed(t, image, kind));
  await t.test('nobody, when it has the name of the file', async (t) => {
    const { theirs, outside } = ground(t);
    const before = stateOf(outside);
    for (const kind of ['tar', 'oci-archive'] as const) {
      link(join(theirs, kind), '../outside/secret');
      await image.write[kind](join(theirs, kind));
      assert.ok(lstatSync(join(theirs, kind)).isFile());
    }
    assert.deepEqual(stateOf(outside), before);
  });
  for (const race of RACES)
    await t.test(`not another user who puts it there meanwhile: ${race.join(' ')}`, (t) =>
      isHarmless(t, image, race),
    );
});

type Image = Awaited<ReturnType<typeof prepare>>;

async function isRefused(t: TestContext, { write, check }: Image, { plant, isDirectory }: Form) {
  for (const kind of KINDS.filter((kind) => isDirectory !== true || DIRECTORY_KINDS.includes(kind))) {
    const places = ground(t);
    const path = plant(places);
    const before = [stateOf(places.outside), stateOf(places.empty)];
    const error = await write[kind](path).then(
      () => undefined,
      (reason: PullError) => reason,
    );
    assert.deepEqual([stateOf(places.outside), stateOf(places.empty)], before, kind);
    assert.equal(error?.code, 'option-malformed', `${kind}: ${error}`);
    assert.match(error.message, /the symbolic link \S+\/theirs\/[pq] of user 65534 leads to /);
    assert.match(error.hint ?? '', /by its own path/);
    assert.throws(() => check[kind](path), { code: 'option-malformed', message: error.message });
  }
}

/** One path by way of links of both, absolute and relative. */
async function isFollowed(t: TestContext, { write }: Image, kind: (typeof KINDS)[number]) {
  const { directory, theirs } = ground(t);
  for (const name of ['real', 'real/deep']) makeTheirs(join(theirs, name));
  link(join(theirs, 'p'), '../theirs/real');
  link(join(theirs, 'q'), join(theirs, 'p/deep/..'));
  link(join(directory, 'r'), 'theirs/q', 0);
  link(join(theirs, 's'), join(directory, 'r'), 0);
  link(join(theirs, 'dst'), 'real/deep');
  const isItself = kind === 'rootfs with --force';
  await write[kind](join(theirs, isItself ? 'dst' : 's/a'));
  assert.ok(existsSync(join(theirs, isItself ? 'real/deep/etc' : 'real/a')));
}

/** The destination, and the call of node:fs before which another user puts a link in the place of the directory `p`. */
type Race = readonly [kind: (typeof KINDS)[number], path: string, call: string, name: string];

async function isHarmless(t: TestContext, { job }: Image, [kind, path, call, name]: Race) {
  const { directory, theirs, outside } = ground(t);
  makeTheirs(join(theirs, 'p'));
  const before = stateOf(outside);
  const script = `cd '${theirs}' && mv p aside && ln -s ../outside p`;
  const attack = { call, name, after: false, script };
  const { isAttacked } = await exportUnderAttack(job[kind](join(theirs, path)), attack, directory);
  assert.ok(isAttacked, 'the attack was never made');
  assert.deepEqual(stateOf(outside), before);
}

test('a store is not opened behind a link of another user to where they do not own', { skip }, async (t) => {
  const { theirs, outside } = ground(t);
  const before = stateOf(outside);
  link(join(theirs, 's'), '../outside');
  for (const root of [join(theirs, 's'), join(theirs, 's/new')])
    assert.throws(() => openStore(root), {
      code: 'option-malformed',
      message: /link \S+\/theirs\/s of user/,
    });
  assert.deepEqual(stateOf(outside), before);
});
