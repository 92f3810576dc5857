import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { readRegularFile } from '../files/read-input.js';
import { PullError } from '../format/error.js';
import type { NetworkEnvironment, Transport } from './transport.js';

/** The certificate bundles of distributions: the first that exists counts, as in Go. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Podman's and docker's certificate directories for all users; a user's own takes precedence. */
const SYSTEM_CERT_DIRS = ['/etc/containers/certs.d', '/etc/docker/certs.d'];

/** Bundles have about 150 authorities: a directory with more files has another purpose. */
const MAX_FILES = 1024;

/** A bundle of all public authorities has some hundred KB. */
const MAX_PEM_BYTES = 8 * 2 ** 20;

/** All files together, which are in memory at once. */
const MAX_TRUST_BYTES = 32 * 2 ** 20;

/** Trusted authorities, and client certificates with their keys; all PEM. */
export interface Trust {
  /** Authorities, or undefined for Node's own. */
  readonly ca: readonly string[] | undefined;
  readonly cert: readonly string[];
  readonly key: readonly string[];
}

/**
 * The certificates for one registry's servers: the authorities of the distribution (or those of
 * `SSL_CERT_FILE` and `SSL_CERT_DIR`), `NODE_EXTRA_CA_CERTS`, and the registry's own directory, in
 * which `*.crt` are authorities, `*.cert` with `*.key` client certificates (containers-certs.d(5)).
 * Node 20 itself knows only the authorities it was built with. The system's files are below `root`.
 * @throws PullError `option-malformed` for a file that was named and cannot be read, and a
 *   certificate without its key
 */
export function readTrust(transport: Transport, root = '/'): Trust {
  const { environment } = transport;
  const reader = new PemReader();
  const own = readCertDir(transport, root, reader);
  if (!transport.tlsVerify) return { ca: undefined, cert: own.cert, key: own.key };
  const system = systemAuthorities(environment, root, reader);
  const extra = [...extraAuthorities(environment, reader), ...own.ca];
  const ca = system ?? (extra.length === 0 ? undefined : rootCertificates);
  return { ca: ca === undefined ? undefined : [...ca, ...extra], cert: own.cert, key: own.key };
}

/**
 * As `readTrust`, as OpenSSL's context; a distribution's bundle takes 17 ms.
 * @throws PullError `option-malformed` as `readTrust`, and for a file that is no PEM
 */
export function createTrust(transport: Transport): SecureContext {
  const { ca, cert, key } = readTrust(transport);
  try {
    return createSecureContext({
      ...(ca === undefined ? {} : { ca: [...ca] }),
      ...(cert.length === 0 ? {} : { cert: [...cert], key: [...key] }),
    });
  } catch (error) {
    // OpenSSL's text names one of its functions and lines; it has nothing of the files.
    const text = error instanceof Error ? error.message : String(error);
    const problem = `a certificate or key for ${transport.host} is malformed: ${text}`;
    throw new PullError('option-malformed', problem, {
      hint: 'certificates and keys must be PEM, each key that of its certificate; --cert-dir, certs.d and SSL_CERT_FILE name them',
      cause: error,
    });
  }
}

function systemAuthorities(
  { SSL_CERT_FILE, SSL_CERT_DIR }: NetworkEnvironment,
  root: string,
  reader: PemReader,
): string[] | undefined {
  if (SSL_CERT_FILE !== undefined || SSL_CERT_DIR !== undefined) {
    const directories = SSL_CERT_DIR?.split(':').filter((path) => path !== '') ?? [];
    const inDirectories = directories.flatMap((directory) =>
      namesIn(directory).flatMap((name) => reader.ifFile(join(directory, name)) ?? []),
    );
    return SSL_CERT_FILE === undefined
      ? inDirectories
      : [reader.named(SSL_CERT_FILE, 'SSL_CERT_FILE'), ...inDirectories];
  }
  for (const path of SYSTEM_BUNDLES) {
    const bundle = reader.ifFile(join(root, path));
    if (bundle !== undefined) return [bundle];
  }
  return undefined;
}

/** Node itself warns about a file that it cannot read. */
function extraAuthorities({ NODE_EXTRA_CA_CERTS }: NetworkEnvironment, reader: PemReader): string[] {
  const extra = NODE_EXTRA_CA_CERTS === undefined ? undefined : reader.ifFile(NODE_EXTRA_CA_CERTS);
  return extra === undefined ? [] : [extra];
}

/** The registry's directory: `--cert-dir`, or the first of the usual ones that exists. */
function readCertDir({ certDir, host, environment }: Transport, root: string, reader: PemReader) {
  const user = environment.HOME === undefined ? [] : [join(environment.HOME, '.config/containers/certs.d')];
  const system = SYSTEM_CERT_DIRS.map((path) => join(root, path));
  const usual = [...user, ...system].map((path) => join(path, host));
  const directory = certDir ?? usual.find((path) => namesIn(path).length > 0);
  const found: Record<'ca' | 'cert' | 'key', string[]> = { ca: [], cert: [], key: [] };
  if (directory === undefined) return found;
  const names = namesIn(directory, certDir !== undefined);
  for (const name of names) {
    const path = join(directory, name);
    if (name.endsWith('.crt')) found.ca.push(reader.named(path, 'a certificate'));
    if (!name.endsWith('.cert')) continue;
    const keyName = `${name.slice(0, -'.cert'.length)}.key`;
    if (!names.includes(keyName)) {
      throw new PullError('option-malformed', `the client certificate ${path} has no key beside it`, {
        hint: `put its key there as ${keyName}; an authority's certificate must end in .crt`,
      });
    }
    found.cert.push(reader.named(path, 'a certificate'));
    found.key.push(reader.named(join(directory, keyName), 'a key'));
  }
  return found;
}

/** Sorted; empty when the directory is absent or not readable, unless the user named it. */
function namesIn(directory: string, isNamed = false): string[] {
  try {
    return readdirSync(directory).sort().slice(0, MAX_FILES);
  } catch (error) {
    if (!isNamed) return [];
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw unreadable(directory, '--cert-dir', `cannot be read (${code})`);
  }
}

/** Reads certificates and keys up to their total limit; no pipes, as each thread reads them. */
class PemReader {
  #sizeBytes = 0;

  /** Undefined when it is no readable file. */
  ifFile(path: string): string | undefined {
    const read = readRegularFile(path, MAX_PEM_BYTES);
    return 'bytes' in read ? this.#text(read.bytes) : undefined;
  }

  /** @throws PullError `option-malformed` when it cannot be read; `what` says what it should be */
  named(path: string, what: string): string {
    const read = readRegularFile(path, MAX_PEM_BYTES);
    if (!('bytes' in read)) throw unreadable(path, what, read.problem);
    return this.#text(read.bytes);
  }

  #text(bytes: Buffer): string {
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes <= MAX_TRUST_BYTES) return bytes.toString('utf8');
    throw new PullError('option-malformed', 'certificates and keys together are larger than 32 MiB', {
      hint: 'check SSL_CERT_FILE, SSL_CERT_DIR, NODE_EXTRA_CA_CERTS and --cert-dir: one of them names something else',
    });
  }
}

function unreadable(path: string, what: string, problem: string): PullError {
  return new PullError('option-malformed', `${path}, ${what}, ${problem}`, {
    hint: 'check the path, what it leads to and who may read it',
  });
}
