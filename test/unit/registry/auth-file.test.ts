import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PullError } from '../../../src/format/error.js';
import { type Offer, offersOf, parseAuthFile, runCredentialHelper } from '../../../src/registry/auth-file.js';
import { installHelper, setEnvironment } from '../../support/environment.js';
import { temporaryDirectory } from '../../support/temporary.js';

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

function offers(file: unknown, host: string, repository: string): Offer[] {
  return [...offersOf(parseAuthFile(JSON.stringify(file), '/a/file'), host, repository)];
}

/** What is offered, in short: user names and passwords, tokens, helpers. */
function offered(file: unknown, host = 'example.com', repository = 'team/app'): string[] {
  return offers(file, host, repository).map((offer) => {
    if (offer.kind === 'helper') return `${offer.name} for ${offer.server}`;
    const { secret } = offer;
    return secret.kind === 'password' ? `${secret.username}:${secret.password}` : `token ${secret.token}`;
  });
}

const login = (user: string) => ({ auth: base64(`${user}:pass`) });

test('the longest part of host and path goes first', () => {
  const auths = {
    'example.com': login('host'),
    'example.com/team': login('team'),
    'example.com/team/app': login('app'),
    'example.com/team/application': login('other'),
    'example.com/te': login('other'),
    'example.com:5000': login('other'),
  };
  assert.deepEqual(offered({ auths }), ['app:pass', 'team:pass', 'host:pass']);
  assert.deepEqual(offered({ auths }, 'example.com', 'team'), ['team:pass', 'host:pass']);
  assert.deepEqual(offered({ auths }, 'example.com', 'x'), ['host:pass']);
  assert.deepEqual(offered({ auths }, 'example.com:5000', 'x'), ['other:pass']);
  assert.deepEqual(offered({ auths }, 'team', 'app'), []);
});

test('a helper of the host goes before the helper of all, and both before the entry of the host', () => {
  const file = {
    auths: { 'example.com': login('host'), 'example.com/team': login('team') },
    credHelpers: { 'example.com': 'one', 'other.com': 'two' },
    credsStore: 'all',
  };
  assert.deepEqual(offered(file), ['team:pass', 'one for example.com', 'all for example.com', 'host:pass']);
  assert.deepEqual(offered(file, 'elsewhere.com'), ['all for elsewhere.com']);
});

test('Docker Hub is known by the key that docker has for it, and by its names', () => {
  for (const key of ['https://index.docker.io/v1/', 'docker.io', 'index.docker.io', 'registry-1.docker.io']) {
    assert.deepEqual(
      offered({ auths: { [key]: login('hub') } }, 'docker.io', 'library/alpine'),
      ['hub:pass'],
      key,
    );
    const helper = offered({ credHelpers: { [key]: 'h' } }, 'docker.io', 'library/alpine');
    const servers = new Set([key, 'https://index.docker.io/v1/', 'docker.io']);
    assert.deepEqual(
      helper,
      [...servers].map((server) => `h for ${server}`),
      key,
    );
  }
  const both = {
    'https://index.docker.io/v1/access-token': login('no'),
    'https://index.docker.io/v1/': login('yes'),
  };
  assert.deepEqual(offered({ auths: both }, 'docker.io', 'library/alpine'), ['yes:pass']);
  const official = { 'docker.io/library': login('official') };
  assert.deepEqual(offered({ auths: official }, 'docker.io', 'library/alpine'), ['official:pass']);
});

test('a key that is a URL stands for its host', () => {
  assert.deepEqual(offered({ auths: { 'https://example.com/v2/': login('url') } }), ['url:pass']);
  assert.deepEqual(offered({ auths: { 'http://example.com': login('url') } }), ['url:pass']);
  assert.deepEqual(offered({ auths: { 'https://example.com.evil/': login('url') } }), []);
});

test('each form of an entry is read', () => {
  const entry = (fields: object) => offered({ auths: { 'example.com': fields } });
  assert.deepEqual(entry({ auth: base64('a:b:c\0\0') }), ['a:b:c']);
  assert.deepEqual(entry({ auth: base64('ä:ü') }), ['ä:ü']);
  assert.deepEqual(entry({ username: 'a', password: 'b:c' }), ['a:b:c']);
  assert.deepEqual(entry({ auth: base64('a:b'), identitytoken: 'x' }), ['token x']);
  assert.deepEqual(entry({ auth: base64('<token>:x') }), ['token x']);
  assert.deepEqual(entry({}), []);
  assert.deepEqual(entry({ auth: '', email: 'a@b' }), []);
});

test('an empty file has no credentials', () => {
  for (const text of ['', '\n', '{}', '{"auths":{},"HttpHeaders":{}}']) {
    assert.deepEqual([...offersOf(parseAuthFile(text, '/a/file'), 'example.com', 'app')], []);
  }
});

test('a malformed file is an error that names it and repeats none of its text', () => {
  const entry = (fields: unknown) => JSON.stringify({ auths: { 'example.com': fields } });
  for (const text of [
    'secret',
    '{"auths": {"secret',
    '["secret"]',
    'null',
    '{"auths": "secret"}',
    '{"credHelpers": {"example.com": "../secret"}}',
    '{"credsStore": "secret/x"}',
    '{"credsStore": 1}',
    entry('secret'),
    entry({ auth: 'secret' }),
    entry({ auth: base64(':secret') }),
    entry({ auth: 1 }),
    entry({ identitytoken: ['secret'] }),
  ]) {
    assert.throws(
      () => [...offersOf(parseAuthFile(text, '/a/file'), 'example.com', 'app')],
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'option-malformed', text);
        assert.match(error.message, /\/a\/file/);
        assert.doesNotMatch(error.message, /secret/);
        return true;
      },
      text,
    );
  }
});

test('a malformed entry is an error in its turn, and does not hide entries before it', () => {
  const file = {
    auths: { 'example.com': { auth: 'broken' }, 'example.com/team': login('team') },
    credHelpers: { 'example.com': 'one' },
  };
  const found = offersOf(parseAuthFile(JSON.stringify(file), '/a/file'), 'example.com', 'team/app');
  const kinds = [found.next().value, found.next().value].map((offer) => offer?.kind);
  assert.deepEqual(kinds, ['secret', 'helper']);
  assert.throws(() => found.next(), { code: 'option-malformed', message: /entry of "example\.com"/ });
});

test('an empty helper disables helpers for its host', () => {
  assert.deepEqual(offered({ credHelpers: { 'other.com': '' }, credsStore: 'all' }), ['all for example.com']);
  const own = {
    credHelpers: { 'example.com': '' },
    credsStore: 'all',
    auths: { 'example.com': login('host') },
  };
  assert.deepEqual(offered(own), ['host:pass']);
  assert.deepEqual(offered({ credHelpers: { 'example.com': null }, credsStore: null }), []);
});

test('the helper of all hosts is called for Docker Hub with both of its keys', () => {
  assert.deepEqual(offered({ credsStore: 'all' }, 'docker.io', 'library/alpine'), [
    'all for https://index.docker.io/v1/',
    'all for docker.io',
  ]);
});

test('an entry may be null, and a key may have a trailing slash', () => {
  assert.deepEqual(offered({ auths: { x: null, 'example.com': null } }), []);
  const auths = { 'example.com/': login('host'), 'example.com/team//': login('team') };
  assert.deepEqual(offered({ auths }), ['team:pass', 'host:pass']);
  assert.deepEqual(offered({ credHelpers: { 'example.com/': 'h' } }), ['h for example.com']);
  const both = { 'example.com': login('exact'), 'example.com/': login('other') };
  assert.deepEqual(offered({ auths: both }), ['exact:pass']);
});

const SERVER = 'example.com:5000';

/** What comes of a helper that is this script. */
function ask(t: TestContext, script: string, more: { timeoutMs?: number; signal?: AbortSignal } = {}) {
  const directory = installHelper(t, 'test', script);
  const { signal = new AbortController().signal } = more;
  return { directory, answer: runCredentialHelper({ name: 'test', server: SERVER, ...more, signal }) };
}

function failsWith(words: RegExp) {
  return (error: PullError) => {
    assert.equal(error.code, 'unauthorized');
    assert.match(error.message, words);
    assert.match(error.hint ?? '', /printf %s example\.com:5000 \| docker-credential-/);
    assert.doesNotMatch(`${error.message} ${error.hint}`, /hush/);
    return true;
  };
}

test('a helper is called with get and the server on stdin, and its output is parsed', async (t) => {
  const script = `printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$server" "$1" "$server"`;
  const secret = await ask(t, script).answer;
  assert.deepEqual(secret, { kind: 'password', username: 'get', password: SERVER });
});

test('the user name <token> makes the secret an identity token', async (t) => {
  const secret = await ask(t, `echo '{"Username":"<token>","Secret":"x"}'`).answer;
  assert.deepEqual(secret, { kind: 'identity-token', token: 'x' });
});

test('a helper without credentials is no failure', async (t) => {
  const script = 'echo "credentials not found in native keychain"; exit 1';
  assert.equal(await ask(t, script).answer, undefined);
});

test('a helper with an empty answer has no credentials', async (t) => {
  for (const answer of ['{}', '{"Username":null}', '{"ServerURL":"x","Username":"","Secret":""}']) {
    assert.equal(await ask(t, `echo '${answer}'`).answer, undefined, answer);
  }
});

test('the input of a helper is the name of the server and nothing else', async (t) => {
  const directory = join(temporaryDirectory(t), 'bin');
  mkdirSync(directory);
  const script = `#!/bin/sh\nprintf '{"Username":"u","Secret":"%s"}' "$(od -An -tx1 | tr -d ' \\n')"\n`;
  writeFileSync(join(directory, 'docker-credential-exact'), script, { mode: 0o755 });
  setEnvironment(t, { PATH: `${directory}${delimiter}${process.env['PATH'] ?? ''}` });
  const { signal } = new AbortController();
  const secret = await runCredentialHelper({ name: 'exact', server: SERVER, signal });
  assert.deepEqual(secret, {
    kind: 'password',
    username: 'u',
    password: Buffer.from(SERVER).toString('hex'),
  });
});

test('a failing helper is an error that does not repeat its output', async (t) => {
  for (const [script, words] of [
    ['echo hush; echo hush >&2; exit 3', /docker-credential-test ended with exit code 3$/],
    ['kill -9 $$', /was ended by SIGKILL/],
    ['echo hush', /answered without a user name and a secret/],
    [`echo '{"Username":"","Secret":"hush"}'`, /answered without a user name and a secret/],
    [`echo '{"Username":"hush"}'`, /answered without a user name and a secret/],
    ['echo null', /answered without a user name and a secret/],
    ['while :; do echo hush hush hush hush hush hush hush hush hush; done', /more than 64 KiB/],
  ] as const) {
    await assert.rejects(ask(t, script).answer, failsWith(words), script);
  }
});

test('a helper that does not read stdin is judged by its exit code', async (t) => {
  await assert.rejects(ask(t, 'exec 0<&-; exit 7').answer, failsWith(/exit code 7/));
});

test('a missing helper is distinguished from a failing one', async () => {
  const { signal } = new AbortController();
  const answer = runCredentialHelper({ name: 'not-installed', server: SERVER, signal });
  assert.equal(await answer, 'not-installed');
});

/** Resolves when no process has this number any more. */
async function gone(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await sleep(10);
  }
}

/** Resolves with the number that a script wrote to a file, once it did. */
async function written(path: string): Promise<number> {
  for (;;) {
    try {
      const text = readFileSync(path, 'utf8');
      if (text.endsWith('\n')) return Number(text);
    } catch {
      // Not yet.
    }
    await sleep(10);
  }
}

/** Starts a program that never ends, and writes down its number. */
const HANGS = 'sleep 1000 & echo $! >"$(dirname "$0")/pid"; wait';

test('a helper that does not answer is killed with its children', async (t) => {
  const { directory, answer } = ask(t, HANGS, { timeoutMs: 500 });
  await assert.rejects(answer, failsWith(/did not answer within 0\.5 s/));
  await gone(await written(join(directory, 'pid')));
});

test('a pull that ends kills a running helper', async (t) => {
  const ending = new AbortController();
  const { directory, answer } = ask(t, HANGS, { signal: ending.signal });
  const pid = await written(join(directory, 'pid'));
  ending.abort();
  await assert.rejects(answer, failsWith(/was stopped/));
  await gone(pid);
});
