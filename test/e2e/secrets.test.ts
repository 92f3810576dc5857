import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { ZPULL } from '../support/programs.js';
import { startProxy } from '../support/proxy-server.js';
import { startSandbox } from '../support/sandbox.js';
import {
  assertNoCanary,
  base64,
  CANARY,
  startSecretRegistry,
  type Trouble,
} from '../support/secret-registry.js';
import { temporaryDirectory } from '../support/temporary.js';

interface Setting {
  readonly trouble?: Trouble;
  readonly args?: readonly string[];
  readonly input?: string;
  /** `$DOCKER_AUTH_CONFIG`, with `{host}` as well. */
  readonly variable?: string;
  /** `auth.json`, with `{host}` for the registry. */
  readonly authfile?: object;
  /** What `docker-credential-canary` does. */
  readonly helper?: string;
}

const LOUD = [
  ['--debug', '--verbose', '--progress', 'plain'],
  ['--debug', '--json', '--progress', 'json'],
] as const;

interface Run {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly input?: string | undefined;
}

/** Runs the command and hunts for secrets in all that it says; its exit code and its output. */
async function runQuietly({ args, env, input = '' }: Run): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [...ZPULL, ...args], { env });
  child.stdin.end(input);
  const closed = once(child, 'close');
  const output = (await Promise.all([text(child.stdout), text(child.stderr)])).join('\n');
  const [code] = (await closed) as [number | null];
  assertNoCanary(output);
  return { code, output };
}

let pulls = 0;

/** Pulls with everything told that can be told, by turns as text and as JSON; the exit code. */
async function pullLoudly(t: TestContext, setting: Setting): Promise<number | null> {
  const { host } = await startSecretRegistry(t, setting.trouble);
  const loud = LOUD[pulls++ % LOUD.length]!;
  const home = temporaryDirectory(t);
  const authfile = join(home, 'containers', 'auth.json');
  mkdirSync(join(home, 'containers'));
  writeFileSync(authfile, JSON.stringify(setting.authfile ?? {}).replaceAll('{host}', host));
  const helper = join(home, `docker-credential-${CANARY.slice(0, 3)}`);
  if (setting.helper !== undefined) {
    writeFileSync(helper, `#!/bin/sh\ncat >/dev/null\n${setting.helper}\n`, { mode: 0o755 });
  }
  const { code, output } = await runQuietly({
    args: [...loud, ...(setting.args ?? []), '--store', join(home, 'store'), `${host}/team/app:v1`],
    env: {
      PATH: `${home}${delimiter}${process.env['PATH']}`,
      HOME: home,
      XDG_RUNTIME_DIR: home,
      DOCKER_AUTH_CONFIG: (setting.variable ?? '').replaceAll('{host}', host),
    },
    input: setting.input,
  });
  // Whoever says nothing keeps every secret.
  assert.match(output, /GET [\d.:]+\/v2\/team\/app\/manifests\/v1: 401|cannot be read/);
  return code;
}

const LOGIN = { auths: { '{host}': { auth: base64(`me:${CANARY}`) } } };
const IDENTITY = { auths: { '{host}': { identitytoken: CANARY } } };
const HELPED = { credHelpers: { '{host}': 'can' } };
const ANSWER = `echo '{"Username":"me","Secret":"${CANARY}"}'; echo ${CANARY} >&2`;

const GOOD: Readonly<Record<string, Setting>> = {
  '--creds': { args: ['--creds', `me:${CANARY}`] },
  'standard input': { args: ['--username', 'me', '--password-stdin'], input: `${CANARY}\n` },
  'a file': { authfile: LOGIN },
  'an identity token': { authfile: IDENTITY },
  'a helper': { authfile: HELPED, helper: ANSWER },
  $DOCKER_AUTH_CONFIG: { variable: JSON.stringify(IDENTITY) },
};

for (const [row, [name, setting]] of Object.entries(GOOD).entries()) {
  test(`a secret from ${name} comes out nowhere, whether it lets in or not`, async (t) => {
    const refused = { ...setting, trouble: 'tokens refuses' } as const;
    const both = [[setting, 0] as const, [refused, 4] as const];
    // So that each end is told in both ways.
    if (row % 2 === 1) both.reverse();
    for (const [one, exitCode] of both) assert.equal(await pullLoudly(t, one), exitCode);
  });
}

const BAD: readonly (readonly [name: string, setting: Setting, exitCode: number])[] = [
  ['a token that is refused', { authfile: LOGIN, trouble: 'registry refuses' }, 4],
  ['a signed URL that is refused', { authfile: LOGIN, trouble: 'storage refuses' }, 4],
  ['a helper that fails', { authfile: HELPED, helper: `echo ${CANARY}; echo ${CANARY} >&2; exit 1` }, 4],
  ['a helper that answers nonsense', { authfile: HELPED, helper: `echo '{"${CANARY}'` }, 4],
  ['an entry that is malformed', { authfile: { auths: { '{host}': { auth: CANARY } } } }, 2],
  ['a variable that is malformed', { variable: `{"auths": ${CANARY}` }, 2],
];

for (const [name, setting, exitCode] of BAD) {
  test(`the secret of ${name} comes out nowhere`, async (t) => {
    assert.equal(await pullLoudly(t, setting), exitCode);
  });
}

const PROXIES: ReadonlyArray<
  readonly [name: string, scheme: 'http' | 'https', status: number | undefined, exitCode: number]
> = [
  ['lets through', 'http', undefined, 0],
  ['wants others', 'http', 407, 4],
  ['wants others for a tunnel', 'https', 407, 5],
  ['refuses', 'https', 403, 5],
  ['fails', 'https', 502, 5],
];

for (const [name, scheme, status, exitCode] of PROXIES) {
  test(`the password of a proxy that ${name} comes out nowhere`, async (t) => {
    const registry = await startSandbox(t);
    const proxy = await startProxy(t, registry.host, status);
    for (const loud of LOUD) {
      const home = temporaryDirectory(t);
      const plain = scheme === 'http' ? ['--plain-http'] : [];
      const { code, output } = await runQuietly({
        args: [...loud, ...plain, '--store', join(home, 'store'), 'registry.test:5000/x:chunked-v1'],
        env: {
          HOME: home,
          XDG_RUNTIME_DIR: home,
          [`${scheme}_proxy`]: `http://proxy:${CANARY}@${proxy.host}`,
        },
      });
      assert.equal(code, exitCode);
      assert.match(output, /GET registry\.test:5000\/v2\/x\/manifests\/chunked-v1/);
      assert.ok(
        proxy.passed.length > 0 && proxy.passed.every(({ credentials }) => credentials === `proxy:${CANARY}`),
      );
    }
  });
}

test('a proxy whose URL is malformed is told of without its password', async (t) => {
  const home = temporaryDirectory(t);
  const { code, output } = await runQuietly({
    args: [...LOUD[0], '--plain-http', '--store', join(home, 'store'), 'registry.test:5000/x:chunked-v1'],
    env: { HOME: home, XDG_RUNTIME_DIR: home, http_proxy: `ftp://proxy:${CANARY}@127.0.0.1:1` },
  });
  assert.equal(code, 2);
  assert.match(output, /http_proxy is not the URL/);
});
