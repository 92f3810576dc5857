import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type CredentialOptions,
  checkAuthFile,
  createCredentials,
} from '../../../src/registry/credentials.js';
import { installHelper } from '../../support/environment.js';
import { skipUnless } from '../../support/programs.js';
import { temporaryDirectory } from '../../support/temporary.js';

const HOST = 'example.com';

function fileFor(user: string, host = HOST): string {
  return JSON.stringify({ auths: { [host]: { username: user, password: 'pass' } } });
}

/** A home of its own with these files, and the environment that leads to it. */
function home(t: TestContext, files: Readonly<Record<string, string>>) {
  const root = temporaryDirectory(t);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return { root, env: { HOME: join(root, 'home'), XDG_RUNTIME_DIR: join(root, 'run') } as NodeJS.ProcessEnv };
}

function credentialsOf(
  env: NodeJS.ProcessEnv,
  more: Partial<Pick<CredentialOptions, 'authfile' | 'given' | 'warn'>> = {},
) {
  return createCredentials({ host: HOST, repository: 'team/app', env, ...more });
}

/** Whose credentials are found. */
async function userOf(env: NodeJS.ProcessEnv, more = {}): Promise<string | undefined> {
  const found = await credentialsOf(env, more).find();
  return found?.secret.kind === 'password' ? found.secret.username : undefined;
}

test('the first source with credentials counts, in the order of podman and docker', async (t) => {
  const order = [
    'run/containers/auth.json',
    'home/.config/containers/auth.json',
    '$DOCKER_AUTH_CONFIG',
    'home/.docker/config.json',
  ];
  for (const [at, first] of order.entries()) {
    const there = order.slice(at).filter((name) => !name.startsWith('$'));
    // What comes before has credentials for others only.
    const files = order.slice(0, at).map((name) => [name, fileFor('other', 'other.com')] as const);
    const { env } = home(
      t,
      Object.fromEntries([...files, ...there.map((name) => [name, fileFor(name)] as const)]),
    );
    if (at <= 2) env['DOCKER_AUTH_CONFIG'] = fileFor('$DOCKER_AUTH_CONFIG');
    assert.equal(await userOf(env), first);
  }
});

test('a byte-order mark before the text of a file of credentials is no part of it', async (t) => {
  const { root, env } = home(t, { 'home/.docker/config.json': `\ufeff${fileFor('marked')}` });
  assert.equal(await userOf(env), 'marked');
  assert.equal(await userOf({}, { authfile: join(root, 'home/.docker/config.json') }), 'marked');
});

test('a broken entry of the host leaves that of a repository in it', async (t) => {
  const auths = { [HOST]: { auth: 'broken' }, [`${HOST}/team`]: { username: 'team', password: 'pass' } };
  const { env } = home(t, { 'home/.docker/config.json': JSON.stringify({ auths }) });
  assert.equal(await userOf(env), 'team');
});

test('XDG_CONFIG_HOME and DOCKER_CONFIG move their files', async (t) => {
  const { root, env } = home(t, {
    'config/containers/auth.json': fileFor('podman'),
    'docker/config.json': fileFor('docker'),
    'home/.config/containers/auth.json': fileFor('no'),
    'home/.docker/config.json': fileFor('no'),
  });
  assert.equal(await userOf({ ...env, XDG_CONFIG_HOME: join(root, 'config') }), 'podman');
  const { sources } = credentialsOf({ ...env, DOCKER_CONFIG: join(root, 'docker') });
  assert.deepEqual(sources, [
    join(root, 'run/containers/auth.json'),
    join(root, 'home/.config/containers/auth.json'),
    join(root, 'docker/config.json'),
  ]);
});

test('a file that is named is the only one, and the option precedes the variable', async (t) => {
  const { root, env } = home(t, {
    a: fileFor('a'),
    b: fileFor('b'),
    'run/containers/auth.json': fileFor('no'),
  });
  const named = { ...env, REGISTRY_AUTH_FILE: join(root, 'a') };
  assert.equal(await userOf(named), 'a');
  assert.equal(await userOf(named, { authfile: join(root, 'b') }), 'b');
  writeFileSync(join(root, 'a'), '{}');
  assert.equal(await userOf(named), undefined);
  assert.equal(await credentialsOf(named).mayHave(), false);
});

test('a file that is named and absent or malformed is an error, before credentials are required', async (t) => {
  const { root, env } = home(t, { bad: '{' });
  for (const [name, words] of [
    ['absent', /there is no file .*\/absent to read/],
    ['bad', /\/bad cannot be read: it is not JSON/],
    ['.', /is a directory/],
  ] as const) {
    const path = join(root, name);
    const failure = { code: 'option-malformed', message: words };
    await assert.rejects(checkAuthFile({ env, authfile: path }), failure);
    await assert.rejects(checkAuthFile({ env: { ...env, REGISTRY_AUTH_FILE: path } }), failure);
    await assert.rejects(credentialsOf(env, { authfile: path }).find(), failure);
  }
  await assert.rejects(checkAuthFile({ env, authfile: '' }), { code: 'option-malformed' });
  await checkAuthFile({ env: { ...env, REGISTRY_AUTH_FILE: '' } });
});

test('the default files may be absent, but must not be malformed', async (t) => {
  assert.equal(await userOf(home(t, {}).env), undefined);
  const { env } = home(t, {
    'run/containers/auth.json': 'not JSON',
    'home/.docker/config.json': fileFor('docker'),
  });
  const credentials = credentialsOf(env);
  await assert.rejects(credentials.find(), {
    code: 'option-malformed',
    message: /run\/containers\/auth\.json/,
  });
});

test('a usual file that is a pipe, a device or a directory causes a warning, and the next source counts', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { root, env } = home(t, {
    'run/containers/x': '',
    'home/.config/containers/auth.json/x': '',
    'home/.docker/config.json': fileFor('docker'),
  });
  const path = join(root, 'run/containers/auth.json');
  const warned: string[] = [];
  const credentials = credentialsOf(env, { warn: (message) => warned.push(message) });
  execFileSync('mkfifo', [path]);
  assert.equal(await credentials.mayHave(), true);
  rmSync(path);
  symlinkSync('/dev/zero', path);
  assert.equal((await credentials.find())?.from, join(root, 'home/.docker/config.json'));
  assert.deepEqual(
    warned.map((message) => /is (a directory|not a regular file), and is skipped/.exec(message)?.[1]),
    ['not a regular file', 'a directory'],
  );
});

test('explicit credentials are the only ones', async (t) => {
  const { env } = home(t, { 'run/containers/auth.json': fileFor('no') });
  const given = { username: 'me', password: 'p' };
  const credentials = credentialsOf(env, { given });
  assert.equal(await credentials.mayHave(), true);
  assert.deepEqual(await credentials.find(), {
    secret: { kind: 'password', ...given },
    from: 'the command line',
  });
});

test('a helper without credentials leaves it to the next source, and is not run to learn whether there may be some', async (t) => {
  const { root, env } = home(t, {
    'run/containers/auth.json': JSON.stringify({ credHelpers: { [HOST]: 'none' } }),
    'home/.config/containers/auth.json': JSON.stringify({ credsStore: 'some' }),
  });
  installHelper(t, 'none', 'echo "credentials not found in native keychain"; exit 1');
  const warned: string[] = [];
  const credentials = credentialsOf(env, { warn: (message) => warned.push(message) });
  assert.equal(await credentials.mayHave(), true);
  assert.equal(await credentials.find(), undefined);
  assert.equal(await credentials.find(), undefined);
  assert.equal(warned.length, 1);
  assert.match(warned[0]!, /docker-credential-some, which .*auth\.json names, is not on PATH/);
  installHelper(t, 'some', `echo '{"Username":"a","Secret":"b"}'`);
  assert.deepEqual(await credentials.find(), {
    secret: { kind: 'password', username: 'a', password: 'b' },
    from: `docker-credential-some, which ${join(root, 'home/.config/containers/auth.json')} names`,
  });
});

test('a helper that is not installed and a usual file that cannot be read cause warnings, and the next source counts', async (t) => {
  const { root, env } = home(t, {
    'home/.config/containers/x': '',
    'home/.docker/config.json': JSON.stringify({ credsStore: 'absent', ...JSON.parse(fileFor('docker')) }),
  });
  const unreadable = join(root, 'home/.config/containers/auth.json');
  // To itself: not even root can read it.
  symlinkSync(unreadable, unreadable);
  const warned: string[] = [];
  assert.equal(await userOf(env, { warn: (message: string) => warned.push(message) }), 'docker');
  assert.equal(warned.length, 2);
  assert.ok(warned[0]?.includes(`${unreadable} cannot be read (ELOOP)`), warned[0]);
});
