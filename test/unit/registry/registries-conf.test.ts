import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { parseReference } from '../../../src/format/reference.js';
import {
  endpointsOf,
  expandShortName,
  type Mirror,
  type Registries,
  type RegistryRule,
  readRegistries,
} from '../../../src/registry/registries-conf.js';
import { temporaryDirectory } from '../../support/temporary.js';

/**
 * A directory with these files below `containers`, as a user's configuration directory and /etc
 * have them.
 */
function configHome(t: TestContext, files: Readonly<Record<string, string>>): string {
  const home = temporaryDirectory(t);
  writeFiles(join(home, 'containers'), files);
  return home;
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    const path = join(directory, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

/** What one file, named by the environment, comes to. */
async function read(t: TestContext, text: string) {
  const path = join(temporaryDirectory(t), 'r.conf');
  writeFileSync(path, text);
  const registries = await readRegistries({ CONTAINERS_REGISTRIES_CONF: path });
  assert.ok(registries !== undefined);
  return { path, registries };
}

test('a registry has its location, its flags and its mirrors in order', async (t) => {
  const { path, registries } = await read(
    t,
    `
    unqualified-search-registries = ["one.example", "two.example:5000"]
    [[registry]]
    prefix = "example.com/team/"
    location = "inner.example/team"
    insecure = true
    [[registry.mirror]]
    location = "a.example:5000"
    insecure = true
    [[registry.mirror]]
    location = "b.example/x"
    pull-from-mirror = "tag-only"
    [[registry]]
    location = "blocked.example"
    blocked = true
    mirror-by-digest-only = true
    [[registry.mirror]]
    location = "c.example"
    [aliases]
    "fedora" = "registry.fedoraproject.org/fedora"
    `,
  );
  assert.deepEqual(registries.searched, ['one.example', 'two.example:5000']);
  assert.deepEqual([...registries.aliases], [['fedora', 'registry.fedoraproject.org/fedora']]);
  assert.deepEqual(registries.rules, [
    {
      prefix: 'example.com/team',
      location: 'inner.example/team',
      insecure: true,
      blocked: false,
      mirrors: [
        { location: 'a.example:5000', insecure: true, pullFromMirror: 'all' },
        { location: 'b.example/x', insecure: false, pullFromMirror: 'tag-only' },
      ],
      file: path,
    },
    {
      prefix: 'blocked.example',
      location: 'blocked.example',
      insecure: false,
      blocked: true,
      mirrors: [{ location: 'c.example', insecure: false, pullFromMirror: 'digest-only' }],
      file: path,
    },
  ]);
});

test('files of registries.conf.d are merged over the file in the order of their names', async (t) => {
  const home = configHome(t, {
    'registries.conf':
      'unqualified-search-registries = ["old"]\n[[registry]]\nlocation = "a"\n[[registry]]\nlocation = "b"',
    'registries.conf.d/20.conf':
      '[[registry]]\nlocation = "a"\nblocked = true\n[aliases]\nx = "two/x"\nz = ""',
    'registries.conf.d/10.conf':
      'unqualified-search-registries = []\n[[registry]]\nlocation = "a"\ninsecure = true\n[aliases]\nx = "one/x"\ny = "one/y"\nz = "one/z"',
    'registries.conf.d/30.txt': 'this is no TOML',
  });
  const registries = await readRegistries({ XDG_CONFIG_HOME: home });
  assert.ok(registries !== undefined);
  const own = registries.rules.filter(({ file }) => file.startsWith(home));
  assert.deepEqual(
    own.map(({ prefix, insecure, blocked }) => [prefix, insecure, blocked]),
    [
      ['a', false, true],
      ['b', false, false],
    ],
  );
  assert.deepEqual(registries.searched, []);
  assert.deepEqual([registries.aliases.get('x'), registries.aliases.get('y')], ['two/x', 'one/y']);
  assert.equal(registries.aliases.has('z'), false);
});

test('a user’s file replaces the system’s, and the *.conf of both are merged over it, the user’s last', async (t) => {
  const root = temporaryDirectory(t);
  const system = join(root, 'etc/containers');
  const user = join(root, 'home/.config/containers');
  const env = { HOME: join(root, 'home') };
  /** The files that rules are from, by what the rules are about. */
  const origins = async (variables: Readonly<Record<string, string>>) => {
    const { rules = [] } = (await readRegistries(variables, root)) ?? {};
    return Object.fromEntries(rules.map(({ prefix, file }) => [prefix, relative(root, file)]));
  };
  assert.equal(await readRegistries(env, root), undefined);
  const about = (...locations: string[]) =>
    locations.map((location) => `[[registry]]\nlocation = "${location}"\n`).join('');
  writeFiles(system, {
    'registries.conf': about('main', 'both', 'drop-in'),
    'registries.conf.d/50.conf': about('drop-in', 'last'),
  });
  assert.deepEqual(await origins(env), {
    main: 'etc/containers/registries.conf',
    both: 'etc/containers/registries.conf',
    'drop-in': 'etc/containers/registries.conf.d/50.conf',
    last: 'etc/containers/registries.conf.d/50.conf',
  });
  writeFiles(user, { 'registries.conf': about('both'), 'registries.conf.d/10.conf': about('last') });
  assert.deepEqual(await origins(env), {
    both: 'home/.config/containers/registries.conf',
    'drop-in': 'etc/containers/registries.conf.d/50.conf',
    last: 'home/.config/containers/registries.conf.d/10.conf',
  });
  // Another place for the user's files, and one file that stands for all.
  assert.deepEqual(await origins({ ...env, XDG_CONFIG_HOME: join(root, 'none') }), {
    main: 'etc/containers/registries.conf',
    both: 'etc/containers/registries.conf',
    'drop-in': 'etc/containers/registries.conf.d/50.conf',
    last: 'etc/containers/registries.conf.d/50.conf',
  });
  const named = join(user, 'registries.conf');
  assert.deepEqual(await origins({ CONTAINERS_REGISTRIES_CONF: named }), { both: relative(root, named) });
});

test('a malformed file is named, with the line of a TOML error', async (t) => {
  for (const [text, words] of [
    ['[[registry]\n', /r\.conf is no TOML, line 1$/],
    ['[registries.search]\nregistries = ["a"]', /version 1/],
    ['[[registry]]\nblocked = true', /without location and prefix/],
    ['[[registry]]\nlocation = 5', /"location" that is not a string/],
    ['[[registry]]\nlocation = "a"\nblocked = "yes"', /"blocked" that is not true or false/],
    ['registry = "a"', /"registry" that is not a list of tables/],
    ['unqualified-search-registries = [1]', /that is not a list of strings/],
    ['[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true', /mirror\]\] without location/],
    [
      '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "no"',
      /pull-from-mirror/,
    ],
  ] as const) {
    await assert.rejects(read(t, text), (error: unknown) => {
      assert.ok(error instanceof PullError && error.code === 'option-malformed', String(error));
      assert.match(error.message, words);
      return true;
    });
  }
  for (const [path, words] of [
    ['/nowhere', /is not there/],
    ['/dev/zero', /is not a regular file/],
    ['/', /is a directory/],
  ] as const) {
    const failure = { code: 'option-malformed', message: words };
    await assert.rejects(readRegistries({ CONTAINERS_REGISTRIES_CONF: path }), failure);
  }
  await assert.rejects(readRegistries({ CONTAINERS_REGISTRIES_CONF: '/' }), { hint: /this user may read/ });
  await assert.rejects(read(t, '#'.repeat(2 ** 20 + 1)), /is larger than 1 MiB/);
  assert.deepEqual((await readRegistries({ CONTAINERS_REGISTRIES_CONF: '/dev/null' }))?.rules, []);
});

const DIGEST = `@sha256:${'ab'.repeat(32)}`;

function rule(prefix: string, more: Partial<RegistryRule> = {}): RegistryRule {
  return { prefix, location: prefix, insecure: false, blocked: false, mirrors: [], file: 'r.conf', ...more };
}

function mirror(location: string, more: Partial<Mirror> = {}): Mirror {
  return { location, insecure: false, pullFromMirror: 'all', ...more };
}

function registries(rules: RegistryRule[], more: Partial<Registries> = {}): Registries {
  return { rules, aliases: new Map(), searched: [], ...more };
}

/** `host/repository` of each endpoint. */
function places(name: string, ...rules: RegistryRule[]): string[] {
  const endpoints = endpointsOf(parseReference(name), registries(rules));
  return endpoints.map(({ host, repository }) => `${host}/${repository}`);
}

test('without a rule an image has only its own registry', () => {
  assert.deepEqual(endpointsOf(parseReference('example.com/a/b'), undefined), [
    { host: 'example.com', repository: 'a/b', insecure: false },
  ]);
  assert.deepEqual(places('example.com/a/b', rule('example.org')), ['example.com/a/b']);
});

test('mirrors come first and in order, and what follows the prefix stays', () => {
  const hub = rule('docker.io', { mirrors: [mirror('m1:5000'), mirror('m2/cache', { insecure: true })] });
  assert.deepEqual(endpointsOf(parseReference('alpine'), registries([hub])), [
    { host: 'm1:5000', repository: 'library/alpine', insecure: false },
    { host: 'm2', repository: 'cache/library/alpine', insecure: true },
    { host: 'docker.io', repository: 'library/alpine', insecure: false },
  ]);
});

test('the longest prefix counts, and it ends where a part of the path ends', () => {
  const rules = [
    rule('example.com', { location: 'short' }),
    rule('example.com/team', { location: 'long/x' }),
    rule('example.com/te', { location: 'wrong' }),
  ];
  assert.deepEqual(places('example.com/team/app', ...rules), ['long/x/app']);
  assert.deepEqual(places('example.com/teams/app', ...rules), ['short/teams/app']);
  assert.deepEqual(places('example.com:5000/team/app', ...rules), ['example.com:5000/team/app']);
});

test('an asterisk stands for all hosts below a domain, whose names stay unless there is a location', () => {
  const below = rule('*.example.com', { location: undefined, mirrors: [mirror('m')] });
  assert.deepEqual(places('a.b.example.com/x', below), ['m/x', 'a.b.example.com/x']);
  assert.deepEqual(places('example.com/x', below), ['example.com/x']);
  assert.deepEqual(places('notexample.com/x', below), ['notexample.com/x']);
  assert.deepEqual(places('a.example.com/x', below, rule('a.example.com', { location: 'own' })), ['own/x']);
});

test('mirrors for digests or for tags only are used for those only', () => {
  const both = rule('example.com', {
    mirrors: [
      mirror('digests', { pullFromMirror: 'digest-only' }),
      mirror('tags', { pullFromMirror: 'tag-only' }),
    ],
  });
  assert.deepEqual(places('example.com/x:1', both), ['tags/x', 'example.com/x']);
  assert.deepEqual(places(`example.com/x:1${DIGEST}`, both), ['digests/x', 'example.com/x']);
});

test('a blocked registry and a location that is none are refused', () => {
  assert.throws(() => places('example.com/x', rule('example.com', { blocked: true })), /blocked by r\.conf/);
  for (const location of ['http://m', 'm?x', '/m', 'm@x', 'm:65536/x', '1.2.3.4.5/x']) {
    const wrong = rule('example.com', { mirrors: [mirror(location)] });
    assert.throws(() => places('example.com/x', wrong), /r\.conf makes example\.com\/x to/, location);
  }
});

test('a short name is what its alias says, or in the one registry to search, or docker’s', () => {
  const aliases = new Map([['fedora', 'registry.fedoraproject.org/fedora']]);
  const one = registries([], { aliases, searched: ['example.com'] });
  const several = registries([], { aliases, searched: ['example.com', 'docker.io'] });
  const expand = (name: string, from: Registries | undefined) =>
    parseReference(name, (short) => expandShortName(short, from));
  assert.equal(expand('fedora:41', several).host, 'registry.fedoraproject.org');
  assert.equal(expand('fedora:41', several).tag, '41');
  assert.deepEqual(expand('a/b', one), { host: 'example.com', repository: 'a/b', tag: 'latest' });
  assert.equal(expand('localhost/a', one).host, 'localhost');
  assert.throws(() => expand('alpine', several), /could be one of example\.com\/alpine, docker\.io\/alpine/);
  const hub = registries([], { searched: ['docker.io'] });
  for (const from of [undefined, registries([]), hub])
    assert.equal(expand('alpine', from).repository, 'library/alpine');
});
