import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, lchownSync, lstatSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  checkCopyDestination,
  checkDestination,
  copyImage,
  exportDockerArchive,
  exportLayers,
  exportRootfs,
  exportTar,
  type PullError,
} from '../../src/index.js';
import { openStore } from '../../src/store/paths.js';
import { exportUnderAttack, MALLORY, makeSecrets, makeTheirs, stateOf } from '../support/attack.js';
import { skipUnless } from '../support/programs.js';
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
  return { ...common, write, check, job };
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

test('no kind of destination is reached by a link of another user to where they do not own', {
  skip,
}, async (t) => {
  const { write, check } = await prepare(t);
  for (const { what, plant, isDirectory } of FORMS) {
    for (const kind of KINDS.filter((kind) => isDirectory !== true || DIRECTORY_KINDS.includes(kind))) {
      await t.test(`${kind}: ${what}`, async (t) => {
        const places = ground(t);
        const path = plant(places);
        const before = [stateOf(places.outside), stateOf(places.empty)];
        const error = await write[kind](path).then(
          () => undefined,
          (reason: PullError) => reason,
        );
        assert.deepEqual([stateOf(places.outside), stateOf(places.empty)], before);
        assert.equal(error?.code, 'option-malformed', String(error));
        assert.match(error.message, /the symbolic link \S+\/theirs\/[pq] of user 65534 leads to /);
        assert.match(error.hint ?? '', /by its own path/);
        assert.throws(() => check[kind](path), { code: 'option-malformed', message: error.message });
      });
    }
  }
});

test('a loop of links ends', { skip }, async (t) => {
  const { write } = await prepare(t);
  const { theirs } = ground(t);
  link(join(theirs, 'p'), 'q/x');
  link(join(theirs, 'q'), 'p');
  for (const kind of KINDS)
    await assert.rejects(write[kind](join(theirs, 'p/new')), { code: 'store-broken', message: /ELOOP/ });
});

test('links of root, and links of another user to what is theirs, are followed', { skip }, async (t) => {
  const { write } = await prepare(t);
  for (const kind of KINDS) {
    const { directory, theirs, empty } = ground(t);
    for (const name of ['real', 'real/deep']) makeTheirs(join(theirs, name));
    link(join(theirs, 'p'), 'real');
    link(join(theirs, 'back'), '../theirs/p/deep/..');
    link(join(theirs, 'r'), empty, 0);
    link(join(directory, 'top'), 'theirs/p', 0);
    for (const [path, real] of [
      [join(theirs, 'p/a'), join(theirs, 'real/a')],
      [join(theirs, 'back/b'), join(theirs, 'real/b')],
      [join(directory, 'top/c'), join(theirs, 'real/c')],
      [join(theirs, 'r/d'), join(empty, 'd')],
      [join(theirs, 'p/../e'), join(theirs, 'e')],
    ] as const) {
      await write[kind](path);
      assert.ok(existsSync(real), `${kind} ${path}`);
    }
    if (!DIRECTORY_KINDS.includes(kind)) continue;
    makeTheirs(join(theirs, 'own'));
    link(join(theirs, 'dst'), 'own');
    await write[kind](join(theirs, 'dst'));
    assert.ok(lstatSync(join(theirs, 'dst')).isSymbolicLink());
  }
});

test('a link under the name of a file gives way to it', { skip }, async (t) => {
  const { write } = await prepare(t);
  for (const kind of ['tar', 'docker-archive', 'oci-archive'] as const) {
    const { theirs, outside } = ground(t);
    const before = stateOf(outside);
    link(join(theirs, 'x.tar'), '../outside/secret');
    await write[kind](join(theirs, 'x.tar'));
    assert.ok(lstatSync(join(theirs, 'x.tar')).isFile());
    assert.deepEqual(stateOf(outside), before);
  }
});

test('no device of root is written to by a link of another user', {
  skip: skip || skipUnless('mkfifo'),
}, async (t) => {
  const { write, store, diffIds } = await prepare(t);
  const { theirs, outside } = ground(t);
  execFileSync('mkfifo', [join(outside, 'pipe')]);
  link(join(theirs, 'x'), '../outside/pipe');
  await assert.rejects(write.tar(join(theirs, 'x')), {
    code: 'option-malformed',
    message: /link \S+\/theirs\/x of/,
  });
  assert.equal(await exportTar({ store, diffIds, file: '/dev/null' }), true);
});

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

/** When the other user puts a link in the place of the directory around the destination: at a call of node:fs with such a name. */
const MOMENTS: readonly (readonly [call: string, name: string, after: boolean])[] = [
  ['lstatSync', 'p', true],
  ['openSync', 'p', false],
];

const LATER: Readonly<Record<(typeof KINDS)[number], readonly (readonly [string, string, boolean])[]>> = {
  rootfs: [['mkdirSync', 'new.part-', false]],
  'rootfs with --force': [['mkdirSync', 'new.part-', true]],
  layers: [['mkdirSync', 'new', false]],
  tar: [['openSync', 'new.part-', false]],
  'docker-archive': [['openSync', 'new.part-', false]],
  oci: [
    ['mkdirSync', 'new', false],
    ['mkdirSync', '.zpull', false],
    ['openSync', 'index.json', false],
  ],
  'oci-archive': [
    ['mkdirSync', 'new.part.lock', false],
    ['openSync', 'new.part', false],
  ],
};

test('a link that another user swaps in leads no kind of destination elsewhere', { skip }, async (t) => {
  const { job } = await prepare(t);
  for (const kind of KINDS) {
    for (const [call, name, after] of [...MOMENTS, ...LATER[kind]]) {
      await t.test(`${kind}: ${after ? 'after' : 'before'} ${call} ${name}`, async (t) => {
        const { directory, theirs, outside } = ground(t);
        makeTheirs(join(theirs, 'p'));
        const before = stateOf(outside);
        const script = `cd '${theirs}' && mv p aside && ln -s ../outside p`;
        const attack = { call, name, after, script };
        const { isAttacked } = await exportUnderAttack(job[kind](join(theirs, 'p/new')), attack, directory);
        assert.ok(isAttacked, 'the attack was never made');
        assert.deepEqual(stateOf(outside), before);
      });
    }
  }
});
