import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { authorityFile, certificates, NEEDS_OPENSSL } from '../support/certificate.js';
import { outcomesOf, startPullingChild } from '../support/child.js';
import { assertProven } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

/** A registry behind TLS, and what its client certificates must be signed by. */
async function secureRegistry(t: TestContext, askForCertificate = false): Promise<string> {
  const registry = await startSandbox(t);
  const demands = { requestCert: true, rejectUnauthorized: true, ca: certificates().authority };
  return tlsFront(t, registry.host, askForCertificate ? demands : {});
}

/** Pulls in a process of its own with this environment; the result, or the error's code. */
async function pullWith(
  t: TestContext,
  host: string,
  env: Readonly<Record<string, string>>,
  more: { certDir?: string; tlsVerify?: boolean } = {},
): Promise<string> {
  const options = { store: temporaryDirectory(t), workers: 2, ...more };
  const child = startPullingChild(t, { image: `${host}/x:chunked-v1`, options }, undefined, env);
  assert.equal(await child.gone, 0);
  const [outcome] = outcomesOf(child.lines);
  assert.ok(outcome !== undefined);
  if ('code' in outcome) return `${outcome.code}: ${outcome.message}`;
  assertProven(outcome);
  return 'proven';
}

test(
  'main thread and workers trust what SSL_CERT_FILE, SSL_CERT_DIR or NODE_EXTRA_CA_CERTS name, and nothing else',
  NEEDS_OPENSSL,
  async (t) => {
    const host = await secureRegistry(t);
    const path = authorityFile(t);
    const untrusted = /^network-hopeless: the TLS certificate of .* is not trusted/;
    assert.match(await pullWith(t, host, {}), untrusted);
    assert.equal(await pullWith(t, host, { SSL_CERT_FILE: path }), 'proven');
    assert.equal(await pullWith(t, host, { SSL_CERT_DIR: join(path, '..') }), 'proven');
    assert.equal(await pullWith(t, host, { NODE_EXTRA_CA_CERTS: path }), 'proven');
    assert.match(await pullWith(t, host, { SSL_CERT_DIR: temporaryDirectory(t) }), untrusted);
  },
);

test(
  'a registry’s own directory names its authority and our client certificate',
  NEEDS_OPENSSL,
  async (t) => {
    const host = await secureRegistry(t, true);
    const home = temporaryDirectory(t);
    const directory = join(home, '.config/containers/certs.d', host);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'ca.crt'), certificates().authority);
    // Trusted, but without a certificate of our own.
    assert.match(await pullWith(t, host, { HOME: home }), /^network-hopeless: /);
    writeFileSync(join(directory, 'client.cert'), certificates().client.cert);
    writeFileSync(join(directory, 'client.key'), certificates().client.key);
    assert.equal(await pullWith(t, host, { HOME: home }), 'proven');
    assert.equal(await pullWith(t, host, {}, { certDir: directory }), 'proven');
    assert.match(await pullWith(t, host, {}, { tlsVerify: false }), /^network-hopeless: /);
    assert.equal(await pullWith(t, host, { HOME: home }, { tlsVerify: false }), 'proven');
  },
);

test('the library obeys policy.json: insecurePolicy turns a required signature into a warning', async (t) => {
  const registry = await startSandbox(t);
  const home = temporaryDirectory(t);
  mkdirSync(join(home, '.config/containers'), { recursive: true });
  writeFileSync(join(home, '.config/containers/policy.json'), '{"default":[{"type":"signedBy"}]}');
  const pullUnder = async (more: object) => {
    const options = { store: temporaryDirectory(t), workers: 2, ...more };
    const job = { image: `${registry.host}/x:chunked-v1`, options };
    const child = startPullingChild(t, job, undefined, { HOME: home });
    assert.equal(await child.gone, 0);
    return child.lines;
  };
  assert.match(JSON.stringify(outcomesOf(await pullUnder({}))), /"unsupported".*asks for a signature/);
  assert.equal(registry.requests.length, 0);
  const lines = await pullUnder({ insecurePolicy: true });
  assert.match(JSON.stringify(outcomesOf(lines)), /"verified":true/);
  const told = lines.flatMap((line) => (line.event === 'warning' ? [line.message] : []));
  assert.equal(told.length, 1);
  assert.match(
    told[0]!,
    /policy\.json asks for a signature of 127\.0\.0\.1:\d+\/x, which zpull cannot check/,
  );
});
