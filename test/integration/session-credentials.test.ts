import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../src/format/error.js';
import { installHelper } from '../support/environment.js';
import { type Answering, type ScriptedServer, startServer } from '../support/scripted-server.js';
import { sessionWithLogin } from '../support/session.js';
import { temporaryDirectory } from '../support/temporary.js';

const BASIC = `Basic ${Buffer.from('me:canary').toString('base64')}`;

async function serverFor(t: TestContext, answer: Answering): Promise<ScriptedServer> {
  const server = await startServer(answer);
  t.after(() => server.close());
  return server;
}

const LOGIN = { auths: { '{host}': { username: 'me', password: 'canary' } } };
const IDENTITY = { auths: { '{host}': { identitytoken: 'canary' } } };

/** Lets in who has one of these header values; others get the challenge, or what `refuse` answers. */
function guard(values: ReadonlySet<string>, challenge: string, status = 401): Answering {
  return (request, response) => {
    if (values.has(request.headers.authorization ?? '')) response.end('{}');
    else if (request.url === '/v2/' || status === 401) {
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    } else response.writeHead(status).end();
  };
}

function failsWith(words: RegExp, hint: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof PullError, String(error));
    assert.equal(error.code, 'unauthorized', error.message);
    assert.match(error.message, words);
    assert.match(error.hint ?? '', hint);
    assert.doesNotMatch(`${error.message} ${error.hint} ${error.stack}`, /canary/);
    return true;
  };
}

test('a registry that requires Basic gets a user name and a password, and only after its challenge', async (t) => {
  const registry = await serverFor(t, guard(new Set([BASIC]), 'Basic realm="x"'));
  const { session } = sessionWithLogin(t, registry.host, LOGIN);
  await session.getManifest('v1');
  await session.getManifest('v1');
  assert.deepEqual(
    registry.requests.map(({ authorization }) => authorization),
    [undefined, BASIC, BASIC],
  );
  assert.equal(await session.authorization(), BASIC);
});

test('credentials that Basic refuses are reported after one try, with their source', async (t) => {
  const registry = await serverFor(t, guard(new Set(), 'Basic realm="x"'));
  const { session, authfile } = sessionWithLogin(t, registry.host, LOGIN);
  const words = new RegExp(`denies access to team/app with the credentials of ${authfile}`);
  await assert.rejects(session.getManifest('v1'), failsWith(words, /docker login .* or "podman login/));
  assert.equal(registry.requests.length, 2);
});

test('without credentials the hint names the sources that were searched', async (t) => {
  const registry = await serverFor(t, guard(new Set(), 'Basic realm="x"'));
  const { session, authfile } = sessionWithLogin(t, registry.host, { auths: {} });
  const hint = new RegExp(`^log in with "docker login ${registry.host}".* in ${authfile}$`);
  await assert.rejects(session.getManifest('v1'), failsWith(/requires a login/, hint));
});

/** A registry with a token server that says who asked it for what. */
async function withTokens(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
) {
  const valid = new Set<string>();
  const tokens = await serverFor(t, answer);
  const challenge = `Bearer realm="${tokens.origin}/token",service="the service"`;
  const registry = await serverFor(t, guard(valid, challenge));
  return { registry, tokens, valid };
}

test('a token server gets Basic credentials, the registry never sees them', async (t) => {
  let serial = 0;
  const { registry, tokens, valid } = await withTokens(t, (_request, response) => {
    valid.add(`Bearer t${++serial}`);
    response.end(JSON.stringify({ token: `t${serial}` }));
  });
  const { session } = sessionWithLogin(t, registry.host, LOGIN);
  await session.getManifest('v1');
  assert.equal(tokens.requests[0]?.authorization, BASIC);
  assert.deepEqual(Object.fromEntries(new URL(tokens.requests[0]!.url, tokens.origin).searchParams), {
    service: 'the service',
    scope: 'repository:team/app:pull',
    account: 'me',
  });
  valid.clear();
  await session.getManifest('v1');
  assert.deepEqual(
    registry.requests.map(({ authorization }) => authorization),
    [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2'],
  );
});

test('an identity token is exchanged by POST, and not sent on by a redirect', async (t) => {
  const posts: [type: string, fields: object][] = [];
  const elsewhere = await serverFor(t, (_request, response) => response.end());
  const { registry, valid } = await withTokens(t, (request, response) => {
    void text(request).then((body) => {
      posts.push([request.headers['content-type'] ?? '', Object.fromEntries(new URLSearchParams(body))]);
      assert.equal(request.method, 'POST');
      assert.equal(request.url, '/token');
      if (posts.length === 1) response.end('{"access_token":"good"}');
      else response.writeHead(307, { location: elsewhere.origin }).end();
    });
  });
  valid.add('Bearer good');
  const { session } = sessionWithLogin(t, registry.host, IDENTITY);
  await session.getManifest('v1');
  const fields = {
    grant_type: 'refresh_token',
    client_id: 'zpull',
    service: 'the service',
    scope: 'repository:team/app:pull',
    refresh_token: 'canary',
  };
  assert.deepEqual(posts, [['application/x-www-form-urlencoded', fields]]);
  valid.clear();
  await assert.rejects(session.getManifest('v1'), { code: 'redirect-refused' });
  assert.equal(elsewhere.requests.length, 0);
});

test('a token server that refuses credentials is distinguished from one that requires some', async (t) => {
  for (const [content, status, words] of [
    [LOGIN, 401, /answered 401 to the credentials of \/.*auth\.json/],
    [IDENTITY, 400, /answered 400 to the credentials of \/.*auth\.json/],
    [{}, 403, /answered 403$/],
  ] as const) {
    const { registry } = await withTokens(t, (_request, response) => response.writeHead(status).end());
    const { session } = sessionWithLogin(t, registry.host, content);
    await assert.rejects(session.getManifest('v1'), failsWith(words, /docker login/));
  }
});

test('an identity token does not help where Basic is required', async (t) => {
  const registry = await serverFor(t, guard(new Set(), 'Basic realm="x"'));
  const { session } = sessionWithLogin(t, registry.host, IDENTITY);
  await assert.rejects(session.getManifest('v1'), failsWith(/denies access/, /docker login/));
  assert.equal(registry.requests.length, 1);
});

test('a registry that hides private repositories gets credentials, if there are any', async (t) => {
  for (const status of [403, 404]) {
    const registry = await serverFor(t, guard(new Set([BASIC]), 'Basic realm="x"', status));
    await sessionWithLogin(t, registry.host, LOGIN).session.getManifest('v1');
    const asked = registry.requests.map(({ url, authorization }) => [url, authorization]);
    const manifest = '/v2/team/app/manifests/v1';
    assert.deepEqual(asked, [
      [manifest, undefined],
      ['/v2/', undefined],
      [manifest, BASIC],
    ]);
    registry.requests.length = 0;
    const stranger = sessionWithLogin(t, registry.host, {}).session;
    const code = status === 403 ? 'unauthorized' : 'image-not-found';
    await assert.rejects(stranger.getManifest('v1'), { code });
    // One that does not have it is asked whether it has schema 1.
    assert.equal(registry.requests.length, status === 404 ? 2 : 1);
  }
});

test('a helper is called again when its credentials are refused, since they expire', async (t) => {
  const valid = new Set([BASIC]);
  const registry = await serverFor(t, guard(valid, 'Basic realm="x"'));
  const secrets = join(temporaryDirectory(t), 'secret');
  writeFileSync(secrets, '{"Username":"me","Secret":"canary"}');
  installHelper(t, 'cloud', `cat ${secrets}`);
  const { session } = sessionWithLogin(t, registry.host, { credHelpers: { '{host}': 'cloud' } });
  await session.getManifest('v1');
  valid.clear();
  valid.add(`Basic ${Buffer.from('me:canary2').toString('base64')}`);
  writeFileSync(secrets, '{"Username":"me","Secret":"canary2"}');
  await session.getManifest('v1');
  valid.clear();
  const words = /with the credentials of docker-credential-cloud, which .*auth\.json names/;
  await assert.rejects(session.getManifest('v1'), failsWith(words, /log in with another/));
});
