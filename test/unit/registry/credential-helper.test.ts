import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PullError } from '../../../src/format/error.js';
import { runCredentialHelper } from '../../../src/registry/credential-helper.js';
import { installHelper } from '../../support/credential-helper.js';
import { setEnvironment } from '../../support/environment.js';
import { temporaryDirectory } from '../../support/temporary.js';

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

test('a helper that takes all of its input for the name gets the name and nothing behind it', async (t) => {
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
