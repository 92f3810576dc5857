import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { rootCertificates } from 'node:tls';
import { PullError } from '../../../src/format/error.js';
import { networkEnvironment } from '../../../src/registry/transport.js';
import { createTrust, readTrust } from '../../../src/registry/trust.js';
import { certificates, NEEDS_OPENSSL } from '../../support/certificate.js';
import { temporaryDirectory } from '../../support/temporary.js';

const HOST = 'registry.example:5000';

/** Looks like a certificate. */
const PEM = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

/** A directory with these files. */
function directoryWith(t: TestContext, files: Readonly<Record<string, string>>): string {
  const directory = temporaryDirectory(t);
  writeFiles(directory, files);
  return directory;
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name, '..'), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
}

function failsWith(words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof PullError && error.code === 'option-malformed', String(error));
    assert.match(error.message, words);
    assert.doesNotMatch(`${error.message} ${error.hint}`, /BEGIN/);
    return true;
  };
}

test('SSL_CERT_FILE and SSL_CERT_DIR replace the system’s authorities, the others are added to them', (t) => {
  const directory = directoryWith(t, { 'file.pem': 'file', 'd1/a': 'a', 'd2/b': 'b', 'extra.pem': 'extra' });
  const certDir = directoryWith(t, { 'z.crt': 'z', 'y.crt': 'y', 'ignored.txt': '' });
  const environment = networkEnvironment({
    SSL_CERT_FILE: join(directory, 'file.pem'),
    SSL_CERT_DIR: `${join(directory, 'd1')}:${join(directory, 'd2')}`,
    NODE_EXTRA_CA_CERTS: join(directory, 'extra.pem'),
    OTHER: 'not of the network',
  });
  assert.deepEqual(readTrust({ host: HOST, tlsVerify: true, certDir, environment }), {
    ca: ['file', 'a', 'b', 'extra', 'y', 'z'],
    cert: [],
    key: [],
  });
});

test('the directory is that of the registry, with its port, and --cert-dir replaces it', (t) => {
  const HOME = directoryWith(t, {
    [`.config/containers/certs.d/${HOST}/own.crt`]: 'own',
    '.config/containers/certs.d/registry.example/other.crt': 'other',
  });
  const environment = { HOME, SSL_CERT_DIR: temporaryDirectory(t) };
  assert.deepEqual(readTrust({ host: HOST, tlsVerify: true, environment }).ca, ['own']);
  assert.deepEqual(readTrust({ host: 'elsewhere', tlsVerify: true, environment }).ca, []);
  const certDir = directoryWith(t, { 'named.crt': 'named' });
  assert.deepEqual(readTrust({ host: HOST, tlsVerify: true, environment, certDir }).ca, ['named']);
});

test('without verification authorities are not read, client certificates are', (t) => {
  const certDir = directoryWith(t, { 'a.crt': 'ca', 'me.cert': 'cert', 'me.key': 'key' });
  assert.deepEqual(readTrust({ host: HOST, tlsVerify: false, certDir, environment: {} }), {
    ca: undefined,
    cert: ['cert'],
    key: ['key'],
  });
});

test('an unusable file that was named is reported, without its content', (t) => {
  const transport = { host: HOST, tlsVerify: true, environment: {} };
  const withoutKey = directoryWith(t, { 'me.cert': PEM });
  assert.throws(() => readTrust({ ...transport, certDir: withoutKey }), failsWith(/me\.cert has no key/));
  assert.throws(() => readTrust({ ...transport, certDir: '/nowhere' }), failsWith(/--cert-dir.*ENOENT/));
  const environment = { SSL_CERT_FILE: '/nowhere' };
  assert.throws(() => readTrust({ ...transport, environment }), failsWith(/SSL_CERT_FILE, is not there/));
  const zeros = { SSL_CERT_FILE: '/dev/zero' };
  assert.throws(() => readTrust({ ...transport, environment: zeros }), failsWith(/is not a regular file/));
  const large = directoryWith(t, { 'a.crt': ' '.repeat(8 * 2 ** 20 + 1) });
  assert.throws(() => readTrust({ ...transport, certDir: large }), failsWith(/larger than 8 MiB/));
  const many = directoryWith(
    t,
    Object.fromEntries([...'abcde'].map((name) => [`${name}.crt`, ' '.repeat(7 * 2 ** 20)])),
  );
  assert.throws(
    () => readTrust({ ...transport, certDir: many }),
    failsWith(/together are larger than 32 MiB/),
  );
  const garbage = directoryWith(t, { 'me.cert': PEM, 'me.key': PEM });
  assert.throws(() => createTrust({ ...transport, certDir: garbage }), failsWith(/is malformed/));
});

test('a certificate in the place of its key, and the key of another, are malformed', NEEDS_OPENSSL, (t) => {
  const transport = { host: HOST, tlsVerify: true, environment: {} };
  const { client, server } = certificates();
  const keyPair = directoryWith(t, { 'me.cert': client.cert, 'me.key': client.key });
  createTrust({ ...transport, certDir: keyPair });
  for (const key of [client.cert, server.key]) {
    const certDir = directoryWith(t, { 'me.cert': client.cert, 'me.key': key });
    assert.throws(() => createTrust({ ...transport, certDir }), failsWith(/is malformed/));
  }
});

test('the first of the distributions’ bundles that exists is trusted, unless the environment names others', (t) => {
  const root = temporaryDirectory(t);
  const trusted = (environment = {}) => readTrust({ host: HOST, tlsVerify: true, environment }, root).ca;
  // Node's own authorities, which are taken where there is none of these.
  assert.equal(trusted(), undefined);
  // From the last to the first: each goes before the one that was there.
  for (const bundle of [
    'etc/ssl/cert.pem',
    'etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
    'etc/ssl/ca-bundle.pem',
    'etc/pki/tls/certs/ca-bundle.crt',
    'etc/ssl/certs/ca-certificates.crt',
  ]) {
    writeFiles(root, { [bundle]: bundle });
    assert.deepEqual(trusted(), [bundle]);
  }
  const extra = directoryWith(t, { 'extra.pem': 'extra' });
  assert.deepEqual(trusted({ NODE_EXTRA_CA_CERTS: join(extra, 'extra.pem') }), [
    'etc/ssl/certs/ca-certificates.crt',
    'extra',
  ]);
  assert.deepEqual(trusted({ SSL_CERT_FILE: join(extra, 'extra.pem') }), ['extra']);
  assert.deepEqual(trusted({ SSL_CERT_DIR: temporaryDirectory(t) }), []);
});

test('without a bundle, configured authorities are added to those of Node', (t) => {
  const extra = directoryWith(t, { 'extra.pem': 'extra' });
  const environment = { NODE_EXTRA_CA_CERTS: join(extra, 'extra.pem') };
  const { ca } = readTrust({ host: HOST, tlsVerify: true, environment }, temporaryDirectory(t));
  assert.deepEqual(ca, [...rootCertificates, 'extra']);
});

test('a user’s directory of certificates precedes podman’s of the system, and that docker’s', (t) => {
  const root = temporaryDirectory(t);
  const HOME = join(root, 'home');
  const own = () => {
    const environment = { HOME, SSL_CERT_DIR: join(root, 'none') };
    const { ca, cert, key } = readTrust({ host: HOST, tlsVerify: true, environment }, root);
    return [...(ca ?? []), ...cert, ...key];
  };
  assert.deepEqual(own(), []);
  for (const name of ['etc/docker', 'etc/containers', 'home/.config/containers']) {
    const directory = `${name}/certs.d/${HOST}`;
    writeFiles(root, {
      [`${directory}/ca.crt`]: `${name} ca`,
      [`${directory}/client.cert`]: `${name} cert`,
      [`${directory}/client.key`]: `${name} key`,
      [`${name}/certs.d/elsewhere/ca.crt`]: 'of another registry',
    });
    // Of one directory alone: they are not put together.
    assert.deepEqual(own(), [`${name} ca`, `${name} cert`, `${name} key`]);
  }
});
