import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import type { Digest } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import type { FaultAction } from '../../src/sandbox/faults.js';
import { assertProven, failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { type Answering, type ScriptedServer, startServer } from '../support/scripted-server.js';
import { startSession } from '../support/session.js';
import { temporaryDirectory } from '../support/temporary.js';

const MANIFEST = Buffer.from('{"schemaVersion":2}');
const LIMIT = 'You have reached your pull rate limit. You may increase the limit by authenticating';
const LIMIT_BODY = JSON.stringify({ errors: [{ code: 'TOOMANYREQUESTS', message: LIMIT }] });

async function serverFor(t: TestContext, answer: Answering): Promise<ScriptedServer> {
  const server = await startServer(answer);
  t.after(() => server.close());
  return server;
}

function digestOf(bytes: Buffer): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

test('a pull limit without a time ends the request after four waits, with the message of the registry', async (t) => {
  t.mock.method(Math, 'random', () => 0.001);
  const server = await serverFor(t, (_, response) => response.writeHead(429).end(LIMIT_BODY));
  const { session, reports } = startSession(t, server.host);
  const error = await failureOf(session.getManifest('v1'));
  assert.deepEqual([error.code, error.exitCode], ['network-hopeless', 5]);
  assert.ok(error.message.includes(LIMIT), error.message);
  assert.match(error.hint, /log in with "docker login"/);
  assert.equal(server.requests.length, 5);
  assert.ok(reports.waits.every(({ reason }) => reason === JSON.stringify(LIMIT)));
});

test('a pull limit with a long time ends the request with the message of the registry', async (t) => {
  const server = await serverFor(t, (_, response) =>
    response.writeHead(429, { 'retry-after': '21600' }).end(LIMIT_BODY),
  );
  const error = await failureOf(startSession(t, server.host).session.getManifest('v1'));
  assert.deepEqual([error.code, server.requests.length], ['network-hopeless', 1]);
  assert.match(error.message, /wait too long: 6 h, until 20\d\d-\d\d-\d\d \d\d:\d\d UTC/);
  assert.ok(error.message.includes(LIMIT), error.message);
  assert.match(error.hint, /docker login/);
});

test('a pull warns once with the message of a registry that asks to wait', async (t) => {
  t.mock.method(Math, 'random', () => 0.01);
  const limit: FaultAction = { status: 429, body: LIMIT_BODY };
  const registry = await startSandbox(t, {
    faults: [{ match: { path: '/manifests/', nth: [1, 3] }, action: limit }],
  });
  const { result, events } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.deepEqual(warnings(events), [`${registry.host} asks to wait and says ${JSON.stringify(LIMIT)}`]);
});

for (const label of ['', 'aws-chunked, X-GZIP']) {
  test(`a Content-Encoding "${label}" that does not fit the bytes is ignored`, async (t) => {
    const action = { withHeaders: { 'Content-Encoding': label } };
    const registry = await startSandbox(t, { faults: [{ match: {}, action }] });
    const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.equal(result.misses, 0);
  });
}

test('a manifest, a config and a token that really are gzip are decoded, within their limits', async (t) => {
  const config = Buffer.from('{}');
  const gzip = { 'content-encoding': 'gzip' };
  const server = await serverFor(t, (request, response) => {
    if (request.url?.startsWith('/token') === true) {
      response.writeHead(200, gzip).end(gzipSync('{"token":"good"}'));
    } else if (request.headers.authorization !== 'Bearer good') {
      const challenge = `Bearer realm="http://${request.headers.host}/token"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    } else if (request.url?.includes('/blobs/') === true) response.writeHead(200, gzip).end(gzipSync(config));
    else if (request.url?.endsWith('/bomb') === true)
      response.writeHead(200, gzip).end(gzipSync(Buffer.alloc(5 * 2 ** 20)));
    else if (request.url?.endsWith('/damaged') === true)
      response.writeHead(200, gzip).end(gzipSync(MANIFEST).subarray(0, 15));
    else response.writeHead(200, { 'content-encoding': 'aws-chunked, X-GZIP' }).end(gzipSync(MANIFEST));
  });
  const { session } = startSession(t, server.host);
  assert.deepEqual((await session.getManifest('v1')).bytes, MANIFEST);
  assert.deepEqual((await session.getManifest(digestOf(MANIFEST))).bytes, MANIFEST);
  assert.deepEqual(await session.getBlob(digestOf(config), config.length), config);
  const bomb = await failureOf(session.getManifest('bomb'));
  assert.deepEqual(
    [bomb.code, bomb.message],
    ['metadata-malformed', 'the manifest bomb is larger than 4 MiB'],
  );
  const damaged = await failureOf(session.getManifest('damaged'));
  assert.deepEqual([damaged.code, damaged.exitCode], ['answer-unexpected', 5]);
});

test('a coding that was not requested and is not gzip ends the request', async (t) => {
  const server = await serverFor(t, (_, response) =>
    response.writeHead(200, { 'content-encoding': 'br' }).end(brotliCompressSync(MANIFEST)),
  );
  const error = await failureOf(startSession(t, server.host).session.getManifest('v1'));
  assert.equal(error.code, 'answer-unexpected');
  assert.match(error.message, /encodes its response/);
});

for (const name of ['v1', digestOf(MANIFEST)]) {
  test(`a web page where the manifest ${name.slice(0, 6)} should be is reported as one`, async (t) => {
    const page = '\n<!DOCTYPE html><html><head><title>Sign in to Wifi\u001b[2J</title></head></html>';
    const server = await serverFor(t, (_, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end(page),
    );
    const error = await failureOf(startSession(t, server.host).session.getManifest(name));
    assert.deepEqual([error.code, error.exitCode], ['answer-unexpected', 5]);
    assert.ok(error.message.startsWith(`${server.host} answers with a web page`), error.message);
    assert.ok(error.message.endsWith('"Sign in to Wifi\\u001b[2J"'), error.message);
    assert.match(error.hint, /login page/);
  });
}

test('each type of manifest is a line of Accept, and schema 1 is requested only where there is nothing else', async (t) => {
  const accepts: string[][] = [];
  const server = await serverFor(t, (request, response) => {
    const lines = request.rawHeaders.filter((_, i, all) => i % 2 === 1 && /^accept$/i.test(all[i - 1]!));
    accepts.push(lines);
    const isOld = lines.some((line) => line.includes('distribution.manifest.v1+'));
    if (request.url?.endsWith('/old') === true && isOld) response.end('{"schemaVersion":1}');
    else if (request.url?.endsWith('/new') === true) response.end(isOld ? '{"schemaVersion":1}' : MANIFEST);
    else response.writeHead(404).end();
  });
  const { session } = startSession(t, server.host);
  assert.deepEqual((await session.getManifest('new')).bytes, MANIFEST);
  assert.equal(accepts.length, 1);
  assert.equal(accepts[0]?.length, 4);
  assert.ok(accepts[0].every((line) => /^application\/vnd\.[a-z0-9.]+\+json$/.test(line)));
  assert.equal((await session.getManifest('old')).bytes.toString(), '{"schemaVersion":1}');
  assert.equal((await failureOf(session.getManifest('none'))).code, 'image-not-found');
  assert.equal(accepts.length, 5);
});

for (const empty of ['""', 'null']) {
  test(`the first token that is not empty counts, and ${empty} is`, async (t) => {
    const server = await serverFor(t, (request, response) => {
      if (request.url?.startsWith('/token') === true)
        response.end(`{"token":${empty},"access_token":"good"}`);
      else if (request.headers.authorization === 'Bearer good') response.end(MANIFEST);
      else {
        const challenge = `Bearer realm="http://${request.headers.host}/token"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    assert.deepEqual((await startSession(t, server.host).session.getManifest('v1')).bytes, MANIFEST);
  });
}

test('a web page where a token should be is reported as one', async (t) => {
  const server = await serverFor(t, (request, response) => {
    const challenge = `Bearer realm="http://${request.headers.host}/token"`;
    if (request.url?.startsWith('/token') === true) response.end('<html><title>Sign in</title></html>');
    else response.writeHead(401, { 'www-authenticate': challenge }).end();
  });
  const error = await failureOf(startSession(t, server.host).session.getManifest('v1'));
  assert.equal(error.code, 'answer-unexpected');
  assert.equal(error.message, `${server.host} answers with a web page where a token should be, "Sign in"`);
});

for (const stated of [undefined, 'Bearer error="invalid_token"', 'Negotiate']) {
  test(`a token that is refused with the challenge ${stated} is renewed by the previous challenge`, async (t) => {
    let serial = 0;
    const server = await serverFor(t, (request, response, nth) => {
      const challenge = `Bearer realm="http://${request.headers.host}/token"`;
      if (request.url?.startsWith('/token') === true) response.end(`{"token":"token-${++serial}"}`);
      else if (nth === 1) response.writeHead(401, { 'www-authenticate': challenge }).end();
      else if (nth === 4)
        response.writeHead(401, stated === undefined ? {} : { 'www-authenticate': stated }).end();
      else response.end(MANIFEST);
    });
    const { session } = startSession(t, server.host);
    await session.getManifest('v1');
    assert.deepEqual((await session.getManifest('v2')).bytes, MANIFEST);
    assert.equal(serial, 2);
  });
}

test('a storage that refuses is named with the code and message of its XML, and no login is advised', async (t) => {
  const xml =
    '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Request has &quot;expired&quot;\u001b[2J https://s3/x?X-Amz-Signature=secret</Message></Error>';
  const storage = await serverFor(t, (_, response) => response.writeHead(403).end(xml));
  const registry = await serverFor(t, (request, response) => {
    if (request.url?.includes('/blobs/') !== true) response.end(MANIFEST);
    else response.writeHead(307, { location: `${storage.origin}/b?X-Amz-Signature=secret` }).end();
  });
  const error = await failureOf(startSession(t, registry.host).session.getBlob(digestOf(MANIFEST), 5));
  assert.ok(error instanceof PullError);
  assert.ok(error.message.includes(`the storage ${storage.host}`), error.message);
  assert.ok(error.message.includes('"AccessDenied: Request has \\"expired\\"\\u001b[2J'), error.message);
  assert.doesNotMatch(`${error.message} ${error.hint}`, /secret|log ?in|logging in/);
});

for (const [how, headers, asked] of [
  ['in the end', {}, 5],
  ['for too long', { 'retry-after': '21600' }, 1],
] as const) {
  test(`a storage that asks to wait ${how} is named, with advice to wait and none to log in`, async (t) => {
    t.mock.method(Math, 'random', () => 0.001);
    const storage = await serverFor(t, (_, response) => response.writeHead(429, headers).end(LIMIT_BODY));
    const registry = await serverFor(t, (_, response) =>
      response.writeHead(307, { location: `${storage.origin}/b` }).end(),
    );
    const error = await failureOf(startSession(t, registry.host).session.getBlob(digestOf(MANIFEST), 5));
    assert.equal(storage.requests.length, asked);
    assert.ok(error.message.includes(storage.host) && error.message.includes(LIMIT), error.message);
    assert.match(error.hint, /storage/);
    assert.doesNotMatch(`${error.message} ${error.hint}`, /log ?in/);
  });
}
