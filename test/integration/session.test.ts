import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Digest } from '../../src/format/digest.js';
import { type Failure, fromFailure, PullError } from '../../src/format/error.js';
import { MAX_CONFIG_BYTES } from '../../src/format/image-config.js';
import type { SessionOptions } from '../../src/registry/ask.js';
import { createCredentials } from '../../src/registry/credentials.js';
import { createMirroredSession } from '../../src/registry/mirrored-session.js';
import { createWaitBudget } from '../../src/registry/retry-after.js';
import { createRegistrySession } from '../../src/registry/session.js';
import { certificates, type KeyPair, NEEDS_OPENSSL } from '../support/certificate.js';
import {
  type Answering,
  breakAfter,
  listen,
  type ScriptedServer,
  startServer,
} from '../support/scripted-server.js';

const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const MANIFEST = Buffer.from('{"schemaVersion":2}');

function digestOf(bytes: Buffer): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

function giveManifest(_request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': `${TYPE}; charset=utf-8` }).end(MANIFEST);
}

async function serverFor(t: TestContext, answer: Answering, tls?: KeyPair): Promise<ScriptedServer> {
  const server = await startServer(answer, tls);
  t.after(() => server.close());
  return server;
}

/** How to ask with patience for `misses` misses, and what is heard then. */
function optionsFor(host: string, misses = 0) {
  const heard = { received: 0, misses: [] as Failure[], pauses: 0 };
  const options: SessionOptions = {
    host,
    tlsVerify: true,
    environment: {},
    repository: 'team/app',
    connectTimeoutMs: 2000,
    idleTimeoutMs: 2000,
    answerTimeoutMs: 2000,
    userAgent: 'zpull-test',
    waits: createWaitBudget(),
    tokens: new Map(),
    patience: {
      received: (bytes) => {
        heard.received += bytes;
      },
      miss: async (reason) => {
        heard.misses.push(reason);
        if (heard.misses.length > misses) throw fromFailure(reason);
      },
      pause: () => {
        heard.pauses++;
        return () => {};
      },
    },
  };
  return { options, heard };
}

/** A session with patience for `misses` misses, and what it was told. */
function sessionFor(t: TestContext, host: string, misses = 0, more: Partial<SessionOptions> = {}) {
  const { options, heard } = optionsFor(host, misses);
  const session = createRegistrySession({ ...options, ...more });
  t.after(() => session.close());
  return { session, heard };
}

function failsWith(code: string, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof PullError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    assert.doesNotMatch(`${error.message} ${error.hint ?? ''}`, /secret/);
    return true;
  };
}

/** A registry that wants a token, and its token server. */
async function registryWithTokens(t: TestContext, answer: Answering, life: object = {}) {
  let serial = 0;
  const valid = new Set<string>();
  const tokens = await serverFor(t, (_request, response) => {
    const token = `token-${++serial}`;
    valid.add(`Bearer ${token}`);
    response.end(JSON.stringify({ token, ...life }));
  });
  const challenge = `Basic realm="other", Bearer realm="${tokens.origin}/token?x=1",service="reg, \\"the\\" one",scope="repository:team/app:push"`;
  const registry = await serverFor(t, (request, response, nth) => {
    if (valid.has(request.headers.authorization ?? '')) answer(request, response, nth);
    else response.writeHead(401, { 'www-authenticate': challenge }).end();
  });
  return { registry, tokens, valid };
}

test('a manifest comes with its bytes, its type and its bytes counted', async (t) => {
  const server = await serverFor(t, giveManifest);
  const { session, heard } = sessionFor(t, server.host);
  assert.deepEqual(await session.getManifest('v1'), { bytes: MANIFEST, mediaType: TYPE });
  assert.equal(server.asked[0]?.url, '/v2/team/app/manifests/v1');
  for (const type of ['oci.image.index.v1', 'manifest.list.v2', 'oci.image.manifest.v1', 'manifest.v2']) {
    assert.ok(server.asked[0]?.accept?.includes(`${type}+json`), type);
  }
  assert.equal(heard.received, MANIFEST.length);
  assert.equal(session.origin, server.origin);
  assert.equal(
    session.blobUrl(digestOf(MANIFEST)),
    `${server.origin}/v2/team/app/blobs/${digestOf(MANIFEST)}`,
  );
});

test('a manifest by digest is verified, and asked for once more when it is wrong', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.end('something else');
    else giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host);
  assert.deepEqual((await session.getManifest(digestOf(MANIFEST))).bytes, MANIFEST);
  assert.deepEqual(heard.misses, []);
});

test('a manifest whose digest stays wrong is a digest mismatch', async (t) => {
  const server = await serverFor(t, giveManifest);
  const { session } = sessionFor(t, server.host);
  const digest = digestOf(Buffer.from('wanted'));
  await assert.rejects(
    session.getManifest(digest),
    failsWith('digest-mismatch', new RegExp(`manifest ${digest}`)),
  );
  assert.equal(server.asked.length, 2);
});

test('a manifest above 4 MiB is not read to its end', async (t) => {
  const server = await serverFor(t, (_request, response) => response.end(Buffer.alloc(4 * 1024 * 1024 + 1)));
  const { session } = sessionFor(t, server.host);
  await assert.rejects(session.getManifest('v1'), failsWith('metadata-malformed', /larger than 4 MiB/));
});

test('a config is verified by digest and length', async (t) => {
  const server = await serverFor(t, (_request, response) => response.end(MANIFEST));
  const { session } = sessionFor(t, server.host);
  const digest = digestOf(MANIFEST);
  assert.deepEqual(await session.getBlob(digest, MANIFEST.length), MANIFEST);
  assert.equal(server.asked[0]?.url, `/v2/team/app/blobs/${digest}`);
  await assert.rejects(
    session.getBlob(digest, MANIFEST.length - 1),
    failsWith('digest-mismatch', /more bytes/),
  );
  await assert.rejects(
    session.getBlob(digest, MANIFEST.length + 1),
    failsWith('metadata-malformed', /has 19 bytes/),
  );
  await assert.rejects(
    session.getBlob(digest, MAX_CONFIG_BYTES + 1),
    failsWith('metadata-malformed', /between 0 and 4194304/),
  );
});

test('what is not there is not found, with the words of the registry', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}');
  });
  const { session } = sessionFor(t, server.host);
  await assert.rejects(
    session.getManifest('v9'),
    failsWith('image-not-found', /has no image team\/app:v9; it says "no such tag"$/),
  );
  await assert.rejects(
    session.getBlob(digestOf(MANIFEST), 5),
    failsWith('blob-not-found', /has no blob sha256/),
  );
});

test('other refusals are told apart', async (t) => {
  let status = 403;
  const server = await serverFor(t, (_request, response) => response.writeHead(status).end());
  const { session } = sessionFor(t, server.host);
  await assert.rejects(session.getManifest('v1'), failsWith('unauthorized', /denies access to team\/app/));
  status = 418;
  await assert.rejects(session.getManifest('v1'), failsWith('answer-unexpected', /answered 418/));
  status = 401;
  await assert.rejects(session.getManifest('v1'), failsWith('unauthorized', /without logging in/));
  assert.equal(server.asked.length, 3);
});

test('a token is fetched for reading this repository and then kept', async (t) => {
  const { registry, tokens } = await registryWithTokens(t, giveManifest);
  const { session } = sessionFor(t, registry.host);
  await session.getManifest('v1');
  await session.getManifest('v2');
  assert.equal(tokens.asked.length, 1);
  const asked = new URL(tokens.asked[0]!.url, tokens.origin).searchParams;
  assert.deepEqual(Object.fromEntries(asked), {
    x: '1',
    service: 'reg, "the" one',
    scope: 'repository:team/app:pull',
  });
  assert.deepEqual(
    registry.asked.map(({ authorization }) => authorization),
    [undefined, 'Bearer token-1', 'Bearer token-1'],
  );
});

test('sessions that share tokens ask for one, renew it for all, and never trust one that is refused', async (t) => {
  const { registry, tokens, valid } = await registryWithTokens(t, giveManifest);
  const shared = { tokens: new Map() };
  const [one, two] = [1, 2].map(() => sessionFor(t, registry.host, 0, shared).session);
  await one!.getManifest('v1');
  await two!.getManifest('v1');
  assert.equal(tokens.asked.length, 1);
  valid.clear();
  await sessionFor(t, registry.host, 0, shared).session.getManifest('v1');
  assert.equal(tokens.asked.length, 2);
  await one!.getManifest('v1');
  assert.equal(tokens.asked.length, 2);
  valid.clear();
  valid.add = () => valid;
  await assert.rejects(
    sessionFor(t, registry.host, 0, shared).session.getManifest('v1'),
    failsWith('unauthorized', /without logging in/),
  );
  assert.equal(tokens.asked.length, 3);
});

test('callers with the same stale token share one renewal', async (t) => {
  const { registry, tokens } = await registryWithTokens(t, giveManifest);
  const { session } = sessionFor(t, registry.host);
  await session.getManifest('v1');
  const stale = await session.authorization();
  assert.equal(stale, 'Bearer token-1');
  const renewed = await Promise.all([1, 2, 3].map(() => session.authorization(stale)));
  assert.deepEqual(renewed, ['Bearer token-2', 'Bearer token-2', 'Bearer token-2']);
  assert.equal(await session.authorization(stale), 'Bearer token-2');
  assert.equal(tokens.asked.length, 2);
});

test('a token that expired is renewed once, a token refused when new ends the question', async (t) => {
  const { registry, tokens, valid } = await registryWithTokens(t, giveManifest);
  const { session } = sessionFor(t, registry.host);
  await session.getManifest('v1');
  valid.clear();
  await session.getManifest('v1');
  assert.equal(tokens.asked.length, 2);
  valid.clear();
  valid.add = () => valid;
  await assert.rejects(session.getManifest('v1'), failsWith('unauthorized', /without logging in/));
  assert.equal(tokens.asked.length, 3);
});

test('a worker that is asked for a token first learns where from the registry', async (t) => {
  const { registry } = await registryWithTokens(t, giveManifest);
  const { session } = sessionFor(t, registry.host);
  assert.equal(await session.authorization(), undefined);
  assert.equal(await session.authorization(''), 'Bearer token-1');
  assert.deepEqual(
    registry.asked.map(({ url }) => url),
    ['/v2/'],
  );
});

test('a token server in trouble is asked three times before it is a miss', async (t) => {
  const tokens = await serverFor(t, (_request, response, nth) => {
    if (nth < 5) response.writeHead(500).end();
    else response.end('{"access_token":"good"}');
  });
  const registry = await serverFor(t, (request, response) => {
    if (request.headers.authorization === 'Bearer good') giveManifest(request, response);
    else response.writeHead(401, { 'www-authenticate': `bearer realm="${tokens.origin}"` }).end();
  });
  const { session, heard } = sessionFor(t, registry.host, 1);
  await session.getManifest('v1');
  assert.equal(tokens.asked.length, 5);
  assert.equal(heard.misses.length, 1);
  assert.match(heard.misses[0]!.message, /no token from .* answers 500/);
});

test('a token server that refuses, and one without a usable token, end the question', async (t) => {
  let status = 403;
  const tokens = await serverFor(t, (_request, response) => {
    response.writeHead(status).end('{"token":"two\\r\\nlines"}');
  });
  const registry = await serverFor(t, (_request, response) => {
    response.writeHead(401, { 'www-authenticate': `Bearer realm="${tokens.origin}/?key=secret"` }).end();
  });
  const { session } = sessionFor(t, registry.host);
  await assert.rejects(session.getManifest('v1'), failsWith('unauthorized', /token server .* answered 403/));
  status = 200;
  await assert.rejects(session.getManifest('v1'), failsWith('answer-unexpected', /without a usable token/));
});

test('redirects are followed without Authorization on another origin, five times', async (t) => {
  const storage = await serverFor(t, (_request, response) => response.end(MANIFEST));
  const { registry } = await registryWithTokens(t, (_request, response) => {
    response.writeHead(307, { location: `${storage.origin}/b?sig=secret` }).end();
  });
  const { session } = sessionFor(t, registry.host);
  await session.getBlob(digestOf(MANIFEST), MANIFEST.length);
  assert.deepEqual(
    storage.asked.map(({ url, authorization }) => [url, authorization]),
    [['/b?sig=secret', undefined]],
  );
  const loop = await serverFor(t, (_request, response) =>
    response.writeHead(302, { location: '/again' }).end(),
  );
  const { session: looping } = sessionFor(t, loop.host);
  await assert.rejects(looping.getManifest('v1'), failsWith('redirect-refused', /more than 5 times/));
});

test('a redirect from https to http is refused', NEEDS_OPENSSL, async (t) => {
  const server = await serverFor(
    t,
    (_request, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/?sig=secret' }).end(),
    certificates().server,
  );
  const { session } = sessionFor(t, server.host, 0, { tlsVerify: false });
  await assert.rejects(session.getManifest('v1'), failsWith('redirect-refused', /from https to plain http/));
});

test('a loopback registry with TLS is found after http was tried', NEEDS_OPENSSL, async (t) => {
  const server = await serverFor(t, giveManifest, certificates().server);
  const { session, heard } = sessionFor(t, server.host, 0, { tlsVerify: false });
  await session.getManifest('v1');
  assert.equal(session.origin, server.origin);
  assert.deepEqual(heard.misses, []);
});

test(
  'a TLS server that answers plain HTTP with 400 is found, by questions asked at once too',
  NEEDS_OPENSSL,
  async (t) => {
    const server = await serverFor(t, giveManifest, certificates().server);
    let plainAsked = 0;
    const front = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', (first) => {
        // The first byte of a TLS greeting.
        if (first[0] === 0x16) {
          const behind = connect({ host: '127.0.0.1', port: Number(server.host.split(':')[1]) });
          behind.on('error', () => {});
          behind.write(first);
          socket.pipe(behind).pipe(socket);
          return;
        }
        // The second question hears of it only when the first has long found the scheme.
        const answer = 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';
        setTimeout(() => socket.end(answer), plainAsked++ === 0 ? 0 : 200);
      });
    });
    const host = await listen(front);
    t.after(() => front.close());
    const { session, heard } = sessionFor(t, host, 0, { tlsVerify: false });
    await Promise.all(['v1', 'v2'].map((tag) => session.getManifest(tag)));
    assert.equal(plainAsked, 2);
    assert.equal(session.origin, `https://${host}`);
    assert.deepEqual(heard.misses, []);
  },
);

test('a certificate that is not trusted ends the question at once', NEEDS_OPENSSL, async (t) => {
  const server = await serverFor(t, giveManifest, certificates().server);
  const { session, heard } = sessionFor(t, server.host, 5);
  await assert.rejects(
    session.getManifest('v1'),
    failsWith('network-hopeless', /certificate of .* is not trusted/),
  );
  assert.deepEqual(heard.misses, []);
});

test('a loopback registry that breaks off its first answer is asked again in http', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) request.socket.destroy();
    else giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host, 1);
  await session.getManifest('v1');
  assert.equal(heard.misses.length, 1);
  assert.match(heard.misses[0]!.message, /broke off/);
  assert.equal(session.origin, server.origin);
});

test('a peer that does not speak HTTP is told so', async (t) => {
  const peer = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('SSH-2.0-OpenSSH_9.6\r\n');
  });
  const host = await listen(peer);
  t.after(() => peer.close());
  const { session } = sessionFor(t, host);
  await assert.rejects(session.getManifest('v1'), failsWith('network-hopeless', /does not answer in HTTP/));
});

test('each question has a line, and what is asked again says why', async (t) => {
  const { registry, tokens } = await registryWithTokens(t, (request, response, nth) => {
    if (nth === 2) response.writeHead(429, { 'retry-after': '1' }).end();
    else if (nth === 3) response.writeHead(502).end('{"errors":[{"message":"secret"}]}');
    else if (nth === 4) response.writeHead(307, { location: '/v2/moved?sig=secret' }).end();
    else giveManifest(request, response);
  });
  const lines: string[] = [];
  const debug = (line: string) => {
    lines.push(
      line
        .replaceAll(registry.host, 'registry')
        .replaceAll(tokens.host, 'tokens')
        .replace(/, \d+ bytes, \d+ ms/, ''),
    );
  };
  const { session } = sessionFor(t, registry.host, 1, { debug });
  await session.getManifest('v1');
  assert.deepEqual(lines, [
    'GET registry/v2/team/app/manifests/v1: 401',
    'GET tokens/token: 200',
    'registry answers 401; asking again with another Authorization',
    'GET registry/v2/team/app/manifests/v1: 429; again, as registry asks to wait 1.0 s',
    'GET registry/v2/team/app/manifests/v1: 502; again, as registry answers 502',
    'GET registry/v2/team/app/manifests/v1: 307',
    'GET registry/v2/moved: 200',
  ]);
});

test('Retry-After is obeyed with the clock of karma stopped, up to two minutes', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(503, { 'retry-after': '0' }).end();
    else if (nth === 2) giveManifest(request, response);
    else response.writeHead(429, { 'retry-after': '600' }).end();
  });
  const { session, heard } = sessionFor(t, server.host);
  await session.getManifest('v1');
  assert.equal(heard.pauses, 1);
  await assert.rejects(session.getManifest('v1'), failsWith('network-hopeless', /wait too long: 600 s/));
  assert.deepEqual(heard.misses, []);
});

test('a 429 that does not say how long is waited out, and is no miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(429).end();
    else giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host);
  await session.getManifest('v1');
  assert.deepEqual([heard.pauses, heard.misses.length], [1, 0]);
});

test('a session that is closed waits no more', async (t) => {
  const server = await serverFor(t, (_request, response) =>
    response.writeHead(429, { 'retry-after': '100' }).end(),
  );
  let isPaused = (): void => {};
  const paused = new Promise<void>((resolve) => {
    isPaused = resolve;
  });
  const { session } = sessionFor(t, server.host, 0, {
    patience: {
      received: () => {},
      miss: async () => {},
      pause: () => {
        isPaused();
        return () => {};
      },
    },
  });
  const answer = session.getManifest('v1');
  await paused;
  session.close();
  await assert.rejects(answer, { name: 'AbortError' });
});

test('what a mirror asks to wait and nobody waits is not counted', async (t) => {
  const waits = createWaitBudget();
  const mirror = await serverFor(t, (_request, response) =>
    response.writeHead(429, { 'retry-after': '100' }).end(),
  );
  const registry = await serverFor(t, giveManifest);
  const endpoints = [mirror, registry].map(({ host }) => ({ host, repository: 'x', insecure: false }));
  const session = createMirroredSession({
    ...optionsFor(registry.host).options,
    waits,
    endpoints,
    credentialsFor: (endpoint) => createCredentials({ ...endpoint, env: {} }),
  });
  t.after(() => session.close());
  assert.deepEqual((await session.getManifest('v1')).bytes, MANIFEST);
  assert.equal(mirror.asked.length, 1);
  assert.equal(waits[0], 0n);
});

test('server errors and bodies that break off are misses', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) response.writeHead(502).end();
    else if (nth === 3) response.writeHead(408).end();
    else if (nth === 2) {
      response.writeHead(200, { 'content-length': 100 });
      breakAfter(response, Buffer.from('half'));
    } else giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host, 3);
  await session.getManifest('v1');
  assert.deepEqual(
    heard.misses.map(({ message }) => message),
    [`${server.host} answers 502`, `${server.host} broke off the connection`, `${server.host} answers 408`],
  );
  assert.equal(heard.received, 4 + MANIFEST.length);
});

test('silence before an answer has a limit of its own, on a new connection and on a kept one', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth !== 1 && nth !== 3) giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host, 2, { answerTimeoutMs: 150 });
  await session.getManifest('v1');
  await session.getManifest('v1');
  assert.deepEqual(
    heard.misses.map(({ message }) => message),
    Array(2).fill(`${server.host} did not begin to answer in time`),
  );
});

test('silence within a body falls under the idle timeout', async (t) => {
  const server = await serverFor(t, (_request, response) => void response.write('begun'));
  const { session } = sessionFor(t, server.host, 0, { answerTimeoutMs: 3_600_000, idleTimeoutMs: 150 });
  await assert.rejects(session.getManifest('v1'), failsWith('network-hopeless', /sent nothing for too long/));
});

test('a request that dies on a reused connection is repeated without a miss', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 2) request.socket.destroy();
    else giveManifest(request, response);
  });
  const { session, heard } = sessionFor(t, server.host);
  await session.getManifest('v1');
  await session.getManifest('v1');
  assert.deepEqual(heard.misses, []);
  assert.equal(server.asked.length, 3);
});

test('the repetition does not try another old connection', async (t) => {
  const used = new WeakSet<object>();
  const server = await serverFor(t, (request, response) => {
    if (used.has(request.socket)) {
      request.socket.destroy();
      return;
    }
    used.add(request.socket);
    // Long enough that the two first questions need two connections.
    setTimeout(() => giveManifest(request, response), 20);
  });
  const { session, heard } = sessionFor(t, server.host);
  await Promise.all([session.getManifest('v1'), session.getManifest('v1')]);
  assert.equal(server.connections(), 2);
  await session.getManifest('v1');
  assert.deepEqual(heard.misses, []);
});

test('a slow body is no silence', async (t) => {
  const server = await serverFor(t, (_request, response) => {
    let sent = 0;
    const timer = setInterval(() => {
      response.write('.');
      if (++sent < 10) return;
      clearInterval(timer);
      response.end();
    }, 50);
  });
  const { session } = sessionFor(t, server.host, 0, { idleTimeoutMs: 300 });
  assert.equal((await session.getManifest('v1')).bytes.length, 10);
});

test('a host that has answered in http is not tried in https afterwards', async (t) => {
  const server = await serverFor(t, (request, response, nth) => {
    if (nth === 1) giveManifest(request, response);
    else response.writeHead(400).end();
  });
  const { session } = sessionFor(t, server.host);
  await session.getManifest('v1');
  await assert.rejects(session.getManifest('v1'), failsWith('answer-unexpected', /answered 400/));
  assert.equal(server.connections(), 1);
});

test('a host that refuses the connection is named', async (t) => {
  const { session } = sessionFor(t, '127.0.0.1:1');
  await assert.rejects(session.getManifest('v1'), failsWith('network-hopeless', /127\.0\.0\.1:1 refuses/));
});

test('only loopback hosts and allowed ones are asked in http', (t) => {
  assert.equal(sessionFor(t, 'example.com').session.origin, 'https://example.com');
  assert.equal(sessionFor(t, 'localhost.example.com').session.origin, 'https://localhost.example.com');
  assert.equal(sessionFor(t, 'localhost:5000').session.origin, 'http://localhost:5000');
  assert.equal(sessionFor(t, '[::1]:5000').session.origin, 'http://[::1]:5000');
  assert.equal(sessionFor(t, 'example.com', 0, { plainHttp: true }).session.origin, 'http://example.com');
  assert.equal(sessionFor(t, 'docker.io').session.origin, 'https://registry-1.docker.io');
  for (const host of ['a/b', 'user@example.com', '', 'a b', 'a?b', 'a#b']) {
    assert.throws(
      () => sessionFor(t, host),
      failsWith('reference-malformed', /is not a registry host/),
      host,
    );
  }
});
