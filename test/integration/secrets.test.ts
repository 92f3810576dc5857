/**
 * Secrets in every place where one can be, and all that a pull, an inspection, a plan or a copy tells: events with
 * `debug`, results, failures with their stacks. What the command line makes of it is in test/e2e/secrets.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { inspectImage, type PullOptions, pullImage } from '../../src/api/pull.js';
import { failureOf } from '../../src/cli/failure.js';
import { certificates, NEEDS_OPENSSL } from '../support/certificate.js';
import { installHelper, registryTable, setEnvironment, useRegistriesConf } from '../support/environment.js';
import { addBlob, emptyLayout, nameImage } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { startServer } from '../support/scripted-server.js';
import {
  assertNoCanary,
  base64,
  CANARY,
  startSecretRegistry,
  type Trouble,
} from '../support/secret-registry.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

type Options = Omit<PullOptions, 'store'>;

/** What asks a registry; a plan is made of what an inspection tells. */
const COMMANDS = {
  pull: (image: string, options: Options, directory: string) =>
    pullImage(image, { ...options, store: join(directory, 'store') }),
  inspect: (image: string, options: Options, directory: string) =>
    inspectImage(image, { ...options, store: join(directory, 'store') }),
  copy: (image: string, options: Options, directory: string) =>
    copyImage(image, { ...options, destination: { kind: 'layout', path: join(directory, 'layout') } }),
} as const;

type Command = keyof typeof COMMANDS;
const ALL = Object.keys(COMMANDS) as Command[];

/** How these commands end: the exit code that all of them share. None of them says anything secret. */
async function run(
  t: TestContext,
  image: string,
  options: Options,
  commands: readonly Command[] = ALL,
): Promise<{ exitCode: number; told: string }> {
  const exitCodes = new Set<number>();
  const told: string[] = [];
  for (const name of commands) {
    const onEvent = (event: object) => told.push(JSON.stringify(event));
    const asked = { ...options, debug: true, workers: 1, patienceMs: 10, onEvent };
    try {
      told.push(JSON.stringify(await COMMANDS[name](image, asked, temporaryDirectory(t))));
      exitCodes.add(0);
    } catch (error) {
      const failure = await failureOf(error);
      told.push(JSON.stringify(failure));
      exitCodes.add(failure.exitCode);
    }
  }
  const text = told.join('\n');
  assertNoCanary(text);
  assert.equal(exitCodes.size, 1, text);
  return { exitCode: [...exitCodes][0]!, told: text };
}

function fileWith(t: TestContext, content: object): string {
  const path = join(temporaryDirectory(t), 'auth.json');
  writeFileSync(path, JSON.stringify(content));
  return path;
}

const LOGIN = { auth: base64(`me:${CANARY}`) };
const BASIC = `Basic ${LOGIN.auth}`;
const ANSWER = `echo '{"Username":"me","Secret":"${CANARY}"}'; echo ${CANARY} >&2`;

/** Where credentials are kept: how to put them there, and what the token server gets of it. */
const PLACES: Readonly<Record<string, { place: (t: TestContext, host: string) => Options; given?: string }>> =
  {
    credsStore: {
      place: (t) => {
        installHelper(t, 'bird', ANSWER);
        return { authfile: fileWith(t, { credsStore: 'bird' }) };
      },
    },
    credHelpers: {
      place: (t, host) => {
        installHelper(t, 'bird', ANSWER);
        return { authfile: fileWith(t, { credHelpers: { [host]: 'bird' } }) };
      },
    },
    '--authfile': { place: (t, host) => ({ authfile: fileWith(t, { auths: { [host]: LOGIN } }) }) },
    $REGISTRY_AUTH_FILE: {
      place: (t, host) => {
        setEnvironment(t, { REGISTRY_AUTH_FILE: fileWith(t, { auths: { [host]: LOGIN } }) });
        return {};
      },
    },
    'a user name and a password in the clear': {
      place: (t, host) => ({
        authfile: fileWith(t, { auths: { [host]: { username: 'me', password: CANARY } } }),
      }),
    },
    'an identity token': {
      place: (t, host) => ({ authfile: fileWith(t, { auths: { [host]: { identitytoken: CANARY } } }) }),
      given: CANARY,
    },
    'an identity token from a helper': {
      place: (t) => {
        installHelper(t, 'bird', `echo '{"Username":"<token>","Secret":"${CANARY}"}'`);
        return { authfile: fileWith(t, { credsStore: 'bird' }) };
      },
      given: CANARY,
    },
    'the command line': { place: () => ({ credentials: { username: 'me', password: CANARY } }) },
  };

for (const [name, { place, given = BASIC }] of Object.entries(PLACES)) {
  test(`a secret from ${name} goes to the token server and appears nowhere else`, async (t) => {
    for (const [trouble, exitCode, commands] of [
      ['tokens refuses', 4, ALL],
      ['tokens are nonsense', 5, ['copy']],
      ['registry refuses', 4, ['pull']],
      ['registry redirects', 5, ['inspect']],
    ] as const) {
      const registry = await startSecretRegistry(t, trouble);
      const options = place(t, registry.host);
      const ended = await run(t, `${registry.host}/team/app:v1`, options, commands);
      assert.equal(ended.exitCode, exitCode, ended.told);
      assert.ok(registry.given.length > 0 && registry.given.every((secret) => secret === given));
    }
  });
}

/** Not all commands everywhere: what starts workers, or waits before it asks again, takes its time. */
const TROUBLES: readonly (readonly [Trouble | undefined, number, readonly Command[]])[] = [
  [undefined, 0, ALL],
  ['tokens fails', 5, ['copy']],
  ['tokens redirects', 5, ALL],
  ['registry fails', 5, ['inspect']],
  ['storage refuses', 4, ['copy']],
  ['storage fails', 5, ['pull', 'copy']],
  ['storage redirects', 5, ['inspect']],
];

for (const [trouble, exitCode, commands] of TROUBLES) {
  test(`tokens, signed URLs and what servers repeat appear nowhere: ${trouble ?? 'no trouble'}`, async (t) => {
    const registry = await startSecretRegistry(t, trouble);
    const image = `${registry.host}/team/app:v1`;
    const options = { credentials: { username: 'me', password: CANARY } };
    const ended = await run(t, image, options, commands);
    assert.equal(ended.exitCode, exitCode, ended.told);
  });
}

/** Forms in which a server may repeat what it was given. */
function repetitions(secrets: readonly string[]): string[] {
  return secrets.flatMap((secret) => [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(secret).toLowerCase(),
    new URLSearchParams({ '': secret }).toString().slice(1),
    base64(secret),
    Buffer.from(secret).toString('base64url'),
  ]);
}

/** All that servers may know of who pulls. */
const GIVEN = ['its pass/word+?', base64('me:its pass/word+?'), 'its.token~/+', 'its:refresh/token'];

for (const [who, status, secret, command] of [
  ['tokens', 401, 'password', 'inspect'],
  ['tokens', 400, 'identity-token', 'inspect'],
  ['tokens', 403, 'password', 'inspect'],
  ['registry', 403, 'password', 'inspect'],
  ['registry', 500, 'identity-token', 'copy'],
  ['blobs', 403, 'password', 'pull'],
  ['page', 200, 'password', 'inspect'],
] as const) {
  test(`secrets that ${who} repeat appear nowhere: ${status}, ${secret}`, async (t) => {
    // A worker knows what it sends; the rest is shared by servers of one operator.
    const known = who === 'blobs' ? [GIVEN[2]!] : secret === 'password' ? GIVEN.slice(0, 3) : GIVEN.slice(2);
    const secrets = who === 'tokens' ? known.filter((given) => given !== GIVEN[2]) : known;
    let repeated = 0;
    const repeat = (response: ServerResponse) => {
      const words = repetitions(secrets);
      const word = words[repeated++ % words.length];
      const message = `you sent ${word}, ${secrets.join(' ')}`;
      const body = who === 'page' ? `<title>${message}</title>` : JSON.stringify({ errors: [{ message }] });
      response.writeHead(status, { 'content-type': 'text/plain' }).end(body);
    };
    const tokens = await startServer((_request, response) => {
      if (who === 'tokens') repeat(response);
      else response.end(JSON.stringify({ token: GIVEN[2] }));
    });
    const image = await startSandbox(t);
    const registry = await startServer(async (request, response) => {
      const { url = '', headers } = request;
      if (headers.authorization !== `Bearer ${GIVEN[2]}`) {
        const challenge = `Bearer realm="${tokens.origin}/token"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      } else if (who === 'registry' || who === 'page' || (who === 'blobs' && headers.range !== undefined)) {
        repeat(response);
      } else {
        const { range } = headers;
        const answer = await fetch(`http://${image.host}${url}`, {
          headers: range === undefined ? {} : { range },
        });
        const { 'content-encoding': _, ...kept } = Object.fromEntries(answer.headers);
        response.writeHead(answer.status, kept).end(Buffer.from(await answer.arrayBuffer()));
      }
    });
    t.after(() => Promise.all([tokens.close(), registry.close()]));
    const login =
      secret === 'password' ? { username: 'me', password: GIVEN[0] } : { identitytoken: GIVEN[3] };
    const authfile = fileWith(t, { auths: { [registry.host]: login } });
    const { told } = await run(t, `${registry.host}/x:chunked-v1`, { authfile }, [command]);
    assert.match(told, /you sent …/);
    for (const form of repetitions(secrets)) assert.ok(!told.includes(form), `${form} in ${told}`);
  });
}

test('a mirror’s credentials and those of the registry behind it appear nowhere', async (t) => {
  const mirror = await startSecretRegistry(t, 'storage refuses');
  const registry = await startSecretRegistry(t);
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const auths = { [mirror.host]: LOGIN, [registry.host]: { identitytoken: CANARY } };
  const ended = await run(t, `${registry.host}/team/app:v1`, { authfile: fileWith(t, { auths }) }, ['pull']);
  assert.equal(ended.exitCode, 0, ended.told);
  assert.deepEqual([new Set(mirror.given), new Set(registry.given)], [new Set([BASIC]), new Set([CANARY])]);
});

test('credentials in registries.conf, where none belong, appear nowhere', async (t) => {
  const name = `me:${CANARY}@registry.test`;
  for (const [text, image] of [
    [registryTable('registry.test', [name]), 'registry.test/x:y'],
    [registryTable('registry.test', [`http://${name}`]), 'registry.test/x:y'],
    [`[aliases]\nit = "${name}/x"`, 'it:y'],
    [`unqualified-search-registries = ["${name}"]`, 'it:y'],
    [`unqualified-search-registries = ["${name}", "other.test"]`, 'it:y'],
  ] as const) {
    useRegistriesConf(t, text);
    const ended = await run(t, image, {}, ['inspect']);
    assert.equal(ended.exitCode, 2, ended.told);
  }
});

test('users and queries in URLs of foreign layers appear nowhere', async (t) => {
  const elsewhere = await startServer((_request, response) => {
    const message = `http://me:${CANARY}@there/?${CANARY}`;
    response.writeHead(403).end(JSON.stringify({ errors: [{ message }] }));
  });
  t.after(() => elsewhere.close());
  const layout = emptyLayout(t);
  const layer = {
    mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    digest: addBlob(layout, Buffer.from('it')),
    size: 2,
    urls: [`http://me:${CANARY}@${elsewhere.host}/theirs?sig=${CANARY}#${CANARY}`],
  };
  nameImage(layout, 'it', [layer], [layer.digest]);
  const { host } = await startSandbox(t, { layout });
  for (const [command, allowForeign, exitCode] of [
    ['pull', false, 8],
    ['inspect', true, 0],
    ['copy', true, 4],
  ] as const) {
    const ended = await run(t, `${host}/x:it`, { allowForeign }, [command]);
    assert.equal(ended.exitCode, exitCode, ended.told);
  }
  assert.ok(elsewhere.requests.length > 0);
});

test('no part of a client’s key appears, whether it fits or not', NEEDS_OPENSSL, async (t) => {
  const { authority, client, server } = certificates();
  const registry = await startSandbox(t);
  const demands = { requestCert: true, rejectUnauthorized: true, ca: authority };
  const host = await tlsFront(t, registry.host, demands);
  const home = temporaryDirectory(t);
  const directory = join(home, '.config/containers/certs.d', host);
  mkdirSync(directory, { recursive: true });
  setEnvironment(t, { HOME: home });
  for (const [key, exitCode] of [
    [client.key, 0],
    [server.key, 2],
    [client.key.replace('PRIVATE', 'PUBLIC'), 2],
  ] as const) {
    const files = { 'ca.crt': authority, 'client.cert': client.cert, 'client.key': key };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
    const ended = await run(t, `${host}/x:chunked-v1`, {}, ['inspect']);
    assert.equal(ended.exitCode, exitCode, ended.told);
    for (const line of key.split('\n')) assert.ok(line === '' || !ended.told.includes(line));
  }
});
