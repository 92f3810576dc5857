import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { certificates } from './certificate.js';
import { ask } from './http.js';

export interface DockerRegistry {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly origin: string;
  /** Copies `oci:LAYOUT:REF` into it as `REPOSITORY:TAG`, blobs as they are. */
  fill(layout: string, ref: string, target: string): Promise<void>;
  /** The same from anywhere that skopeo reads. */
  fillFrom(source: string, target: string): Promise<void>;
  /** Ends it and removes what it stored. */
  stop(): Promise<void>;
}

/** Another process may take the free port before the registry does; then another port is tried. */
const MAX_STARTS = 3;
const READY_WITHIN_MS = 20_000;
const POLL_MS = 20;

/** Access to a registry. */
interface User {
  readonly username: string;
  readonly password: string;
}

interface Options {
  /** The only user, by Basic authentication (needs htpasswd). */
  readonly user?: User;
  /** By TLS, with the tests' certificate. */
  readonly tls?: boolean;
  /** Added to its configuration. */
  readonly config?: object;
}

/** Starts Debian's docker-registry on a free loopback port over an empty store; resolves when it answers. */
export async function startDockerRegistry(options: Options = {}): Promise<DockerRegistry> {
  const directory = mkdtempSync(join(tmpdir(), 'zpull-docker-registry-'));
  for (let start = 1; start <= MAX_STARTS; start++) {
    const host = `127.0.0.1:${await freePort()}`;
    const child = launch(directory, host, options);
    const origin = `${options.tls ? 'https' : 'http'}://${host}`;
    if (await isReady(child, origin)) return handle(child, directory, origin, options.user);
    await end(child);
  }
  rmSync(directory, { recursive: true, force: true });
  throw new Error(`docker-registry did not start in ${MAX_STARTS} attempts`);
}

function handle(
  child: ChildProcess,
  directory: string,
  origin: string,
  user: User | undefined,
): DockerRegistry {
  const { host } = new URL(origin);
  const fillFrom = async (source: string, target: string) => {
    const options = [
      'copy',
      '--quiet',
      '--insecure-policy',
      '--dest-tls-verify=false',
      '--preserve-digests',
      ...(user === undefined ? [] : [`--dest-creds=${user.username}:${user.password}`]),
    ];
    await promisify(execFile)('skopeo', [...options, source, `docker://${host}/${target}`]);
  };
  return {
    host,
    origin,
    fill: (layout, ref, target) => fillFrom(`oci:${layout}:${ref}`, target),
    fillFrom,
    stop: async () => {
      await end(child);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** JSON is YAML, and needs no quoting rules. */
function launch(directory: string, host: string, { user, tls, config: more }: Options): ChildProcess {
  const config = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, 'store') } },
    http: { addr: host, ...(tls && { tls: writeCertificate(directory) }) },
    ...(user !== undefined && { auth: { htpasswd: { realm: 'test', path: writeUsers(directory, user) } } }),
    ...more,
  };
  const path = join(directory, 'config.yml');
  writeFileSync(path, JSON.stringify(config));
  return spawn('docker-registry', ['serve', path], { stdio: 'ignore' });
}

/** A file of users as Apache has it; docker-registry takes bcrypt only. */
function writeUsers(directory: string, { username, password }: User): string {
  const path = join(directory, 'htpasswd');
  writeFileSync(path, execFileSync('htpasswd', ['-nbB', username, password]));
  return path;
}

function writeCertificate(directory: string): { certificate: string; key: string } {
  const certificate = join(directory, 'cert.pem');
  const key = join(directory, 'key.pem');
  writeFileSync(certificate, certificates().server.cert);
  writeFileSync(key, certificates().server.key);
  return { certificate, key };
}

async function isReady(child: ChildProcess, origin: string): Promise<boolean> {
  let failed = false;
  child.once('error', () => {
    failed = true;
  });
  const deadline = performance.now() + READY_WITHIN_MS;
  while (!failed && child.exitCode === null && performance.now() < deadline) {
    try {
      const { status } = await ask(`${origin}/v2/`);
      if (status === 200 || status === 401) return true;
    } catch {
      // Nothing listens there yet.
    }
    await sleep(POLL_MS);
  }
  return false;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

/** A port of 127.0.0.1 where nobody listens now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
