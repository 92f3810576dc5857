import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { Digest } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import type { RegistrySession } from '../../src/registry/session.js';
import { type Answering, startServer } from '../support/scripted-server.js';
import { sessionWithLogin } from '../support/session.js';

const BASIC = `Basic ${Buffer.from('me:canary').toString('base64')}`;
const LOGIN = { username: 'me', password: 'canary' };
const IDENTITY = { identitytoken: 'canary' };
const BYTES = Buffer.from('{"schemaVersion":2}');
const DIGEST = `sha256:${createHash('sha256').update(BYTES).digest('hex')}` as Digest;

/** All that a server was told. */
interface Heard {
  readonly host: string;
  readonly origin: string;
  readonly requests: string[];
}

async function serverThatHears(t: TestContext, answer: Answering): Promise<Heard> {
  const requests: string[] = [];
  const server = await startServer((request, response, nth) => {
    const at = requests.push(headOf(request)) - 1;
    void text(request).then((body) => {
      requests[at] += body;
      answer(request, response, nth);
    });
  });
  t.after(() => server.close());
  return { host: server.host, origin: server.origin, requests };
}

function headOf({ method, url, rawHeaders }: IncomingMessage): string {
  return `${method} ${url} ${rawHeaders.join(' ')} `;
}

function sessionFor(t: TestContext, host: string, login: object): RegistrySession {
  return sessionWithLogin(t, host, { auths: { [host]: login } }).session;
}

/** What is asked of a registry that redirects the path with `word` in it. */
const QUESTIONS: readonly (readonly [word: string, ask: (session: RegistrySession) => Promise<unknown>])[] = [
  ['/manifests/', (session) => session.getManifest('v1')],
  ['/manifests/', (session) => session.getManifest(DIGEST)],
  ['/manifests/', (session) => session.headManifest('v1')],
  ['/blobs/', (session) => session.getBlob(DIGEST, BYTES.length)],
  ['/v2/', (session) => session.authorization('')],
];

/** Answers of a storage that wants credentials, by what it would have them by. */
const DEMANDS: readonly ((origin: string) => readonly [status: number, challenge: string])[] = [
  () => [401, 'Basic realm="x"'],
  (origin) => [401, `Bearer realm="${origin}/token",service="s"`],
  (origin) => [401, `Basic realm="x", Bearer realm="${origin}/token"`],
  (origin) => [403, `Bearer realm="${origin}/token"`],
  (origin) => [404, `Bearer realm="${origin}/token"`],
];

test('the target of a redirect gets neither credentials nor tokens, whatever its challenge', async (t) => {
  for (const [word, ask] of QUESTIONS) {
    for (const demand of DEMANDS) {
      for (const login of [LOGIN, IDENTITY]) {
        const storage = await serverThatHears(t, (_request, response) => {
          const [status, challenge] = demand(storage.origin);
          response.writeHead(status, { 'www-authenticate': challenge }).end('{"token":"stolen"}');
        });
        const registry = await serverThatHears(t, (request, response) => {
          if (!request.url?.includes(word)) response.end(BYTES);
          else response.writeHead(307, { location: `${storage.origin}/data` }).end();
        });
        const outcome = await ask(sessionFor(t, registry.host, login)).catch((error: unknown) => error);
        const told = JSON.stringify([word, login, storage.requests, String(outcome)]);
        assert.doesNotMatch(storage.requests.join(), /authorization|canary|refresh_token|account/i, told);
        assert.deepEqual(
          storage.requests.filter((request) => !request.includes(' /data ')),
          [],
          told,
        );
        assert.doesNotMatch(registry.requests.join(), /canary|Basic/, told);
      }
    }
  }
});

test('credentials that the registry required stay with it when storage requires some, too', async (t) => {
  const storage = await serverThatHears(t, (_request, response) => {
    response.writeHead(401, { 'www-authenticate': `Bearer realm="${storage.origin}/token"` }).end();
  });
  const registry = await serverThatHears(t, (request, response) => {
    if (request.headers.authorization !== BASIC) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    } else if (request.url?.includes('/blobs/')) {
      response.writeHead(307, { location: `${storage.origin}/data` }).end();
    } else response.end(BYTES);
  });
  const session = sessionFor(t, registry.host, LOGIN);
  await session.getManifest('v1');
  await assert.rejects(session.getBlob(DIGEST, BYTES.length), (error) => {
    assert.ok(error instanceof PullError);
    assert.equal(error.code, 'unauthorized');
    assert.match(error.message, new RegExp(`storage ${storage.host}, to which ${registry.host} redirects`));
    assert.match(error.hint, /credentials are never sent to/);
    return true;
  });
  assert.doesNotMatch(storage.requests.join(), /authorization|canary/i);
  assert.equal(storage.requests.length, 1);
  // What storage said is not taken for the registry's word: Basic goes on being right.
  await session.getManifest('v1');
  assert.match(registry.requests.at(-1) ?? '', new RegExp(BASIC));
});

test('a redirect that comes back to the registry from another origin carries no challenge', async (t) => {
  const elsewhere = await serverThatHears(t, (_request, response) => {
    response.writeHead(302, { location: `${registry.origin}/planted` }).end();
  });
  const registry = await serverThatHears(t, (request, response) => {
    const location = `${elsewhere.origin}/x`;
    if (request.url === '/planted') {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${elsewhere.origin}/token"` }).end();
    } else response.writeHead(307, { location }).end();
  });
  const session = sessionFor(t, registry.host, LOGIN);
  await assert.rejects(session.getManifest('v1'), { code: 'unauthorized' });
  assert.doesNotMatch([...elsewhere.requests, ...registry.requests].join(), /authorization|canary/i);
});

test('a redirect of a token server to another origin carries no password, and a refusal there is not about a login', async (t) => {
  const elsewhere = await serverThatHears(t, (_request, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
  });
  const registry = await serverThatHears(t, (request, response) => {
    if (request.url?.startsWith('/token')) response.writeHead(307, { location: elsewhere.origin }).end();
    else response.writeHead(401, { 'www-authenticate': `Bearer realm="${registry.origin}/token"` }).end();
  });
  await assert.rejects(sessionFor(t, registry.host, LOGIN).getManifest('v1'), {
    code: 'answer-unexpected',
    message: `${elsewhere.host}, to which the token server redirects, answered 401`,
  });
  assert.doesNotMatch(elsewhere.requests.join(), /authorization|canary/i);
});
