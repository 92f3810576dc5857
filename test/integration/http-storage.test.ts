import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import type { Digest } from '../../src/format/digest.js';
import { certificates, NEEDS_OPENSSL } from '../support/certificate.js';
import { registryTable, useRegistriesConf } from '../support/environment.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { assertProven, failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { startServer } from '../support/scripted-server.js';
import { startSession } from '../support/session.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

/** A registry with https that redirects a layer, which threads fetch, to a storage in http; returns its host. */
async function withHttpStorage(t: TestContext): Promise<string> {
  const redirect = { match: { path: LAYER_DIGEST }, action: { redirect: {} } };
  return tlsFront(t, (await startSandbox(t, { faults: [redirect] })).host);
}

test(
  'a redirect from https to http storage is refused with a hint, and followed where the option allows it',
  NEEDS_OPENSSL,
  async (t) => {
    const image = `${await withHttpStorage(t)}/x:chunked-v1`;
    const options = { store: temporaryDirectory(t), tlsVerify: false };
    const error = await failureOf(pull(image, options));
    assert.deepEqual([error.code, error.exitCode], ['redirect-refused', 5]);
    assert.match(error.hint, /--allow-http-storage, or insecure = true .* allows it/);
    assertProven((await pull(image, { ...options, allowHttpStorage: true })).result);
  },
);

test(
  'a registry that is insecure in registries.conf may have its storage in http',
  NEEDS_OPENSSL,
  async (t) => {
    const host = await withHttpStorage(t);
    useRegistriesConf(t, registryTable(host, [], 'insecure = true'));
    assertProven((await pull(`${host}/x:chunked-v1`, { store: temporaryDirectory(t) })).result);
  },
);

test(
  'http storage gets no credentials, and is trusted only for what a digest proves',
  NEEDS_OPENSSL,
  async (t) => {
    const bytes = Buffer.from('{}');
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
    const storage = await startServer((_, response) => response.end(bytes));
    const registry = await startServer((request, response) => {
      const isKnown = request.headers.authorization !== undefined;
      const headers = isKnown
        ? { location: `${storage.origin}/x` }
        : { 'www-authenticate': 'Basic realm="x"' };
      response.writeHead(isKnown ? 307 : 401, headers).end();
    }, certificates().server);
    t.after(() => Promise.all([storage.close(), registry.close()]));
    const { session } = startSession(t, registry.host, {
      tlsVerify: false,
      allowHttpStorage: true,
      credentials: {
        find: async () => ({
          secret: { kind: 'password', username: 'u', password: 'p' },
          from: 'the test',
        }),
        mayHave: async () => true,
        sources: [],
        close: () => {},
      },
    });
    assert.deepEqual(await session.getBlob(digest, bytes.length), bytes);
    assert.deepEqual((await session.getManifest(digest)).bytes, bytes);
    assert.equal((await failureOf(session.getManifest('v1'))).code, 'redirect-refused');
    assert.deepEqual(
      storage.requests.map(({ authorization }) => authorization),
      [undefined, undefined],
    );
  },
);
