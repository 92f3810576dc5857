import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setEnvironment } from './environment.js';
import { skipUnless } from './programs.js';
import { temporaryDirectory } from './temporary.js';

/** A certificate with its key, both PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

interface Certificates {
  /** Who signed the others, PEM. */
  readonly authority: string;
  /** For localhost, registry.test and 127.0.0.1. */
  readonly server: KeyPair;
  readonly client: KeyPair;
}

/** The `skip` of tests that use certificates. */
export const NEEDS_OPENSSL = { skip: skipUnless('openssl') };

let made: Certificates | undefined;

/** Returns an authority and what it signed, created by openssl once per process. */
export function certificates(): Certificates {
  made ??= makeCertificates();
  return made;
}

/** Returns the path of a file with the authority's certificate, deleted when the test ends. */
export function authorityFile(t: TestContext): string {
  const path = join(temporaryDirectory(t), 'ca.pem');
  writeFileSync(path, certificates().authority);
  return path;
}

/** Makes this process trust the authority until the test ends. */
export function trustTestAuthority(t: TestContext): void {
  setEnvironment(t, { SSL_CERT_FILE: authorityFile(t) });
}

/** The extensions, independent of the machine's openssl.cnf. */
const CONFIG = `
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
[server]
subjectAltName = DNS:localhost, DNS:registry.test, IP:127.0.0.1
[client]
extendedKeyUsage = clientAuth
`;

/** Takes 70 ms. */
function makeCertificates(): Certificates {
  const cwd = mkdtempSync(join(tmpdir(), 'zpull-certificates-'));
  const openssl = (line: string): void => {
    execFileSync('openssl', line.split(' '), { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const newKey = '-config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
  const read = (name: string): string => readFileSync(join(cwd, name), 'utf8');
  const signed = (name: string): KeyPair => {
    openssl(`req -new ${newKey} -subj /CN=${name} -keyout ${name}.key -out ${name}.csr`);
    const by = `-CA authority.pem -CAkey authority.key -CAcreateserial -days 2`;
    openssl(`x509 -req -in ${name}.csr ${by} -extfile openssl.cnf -extensions ${name} -out ${name}.pem`);
    return { cert: read(`${name}.pem`), key: read(`${name}.key`) };
  };
  try {
    writeFileSync(join(cwd, 'openssl.cnf'), CONFIG);
    const itself = '-x509 -extensions authority -subj /CN=authority -days 2';
    openssl(`req ${itself} ${newKey} -keyout authority.key -out authority.pem`);
    return { authority: read('authority.pem'), server: signed('server'), client: signed('client') };
  } finally {
    rmSync(cwd, { recursive: true });
  }
}
