import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

export interface DockerRegistry {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly origin: string;
  /** Copies `oci:LAYOUT:REF` into it as `REPOSITORY:TAG`, blobs as they are. */
  fill(layout: string, ref: string, target: string): Promise<void>;
  /** Ends it and removes what it stored. */
  stop(): Promise<void>;
}

/** Somebody else may take the free port before the registry does: then another is tried. */
const MAX_STARTS = 3;
const READY_WITHIN_MS = 20_000;
const POLL_MS = 20;

/**
 * Starts Debian's docker-registry on a free loopback port over an empty store; resolves when it answers. `more` is added
 * to its configuration.
 */
export async function startDockerRegistry(more: object = {}): Promise<DockerRegistry> {
  const directory = mkdtempSync(join(tmpdir(), 'zpull-docker-registry-'));
  for (let start = 1; start <= MAX_STARTS; start++) {
    const host = `127.0.0.1:${await freePort()}`;
    const child = launch(directory, host, more);
    if (await isReady(child, host)) return handle(child, directory, host);
    await end(child);
  }
  rmSync(directory, { recursive: true, force: true });
  throw new Error(`docker-registry did not start in ${MAX_STARTS} attempts`);
}

function handle(child: ChildProcess, directory: string, host: string): DockerRegistry {
  return {
    host,
    origin: `http://${host}`,
    fill: async (layout, ref, target) => {
      const options = [
        'copy',
        '--quiet',
        '--insecure-policy',
        '--dest-tls-verify=false',
        '--preserve-digests',
      ];
      await promisify(execFile)('skopeo', [...options, `oci:${layout}:${ref}`, `docker://${host}/${target}`]);
    },
    stop: async () => {
      await end(child);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** JSON is YAML, and needs no quoting rules. */
function launch(directory: string, host: string, more: object): ChildProcess {
  const config = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, 'store') } },
    http: { addr: host },
    ...more,
  };
  const path = join(directory, 'config.yml');
  writeFileSync(path, JSON.stringify(config));
  return spawn('docker-registry', ['serve', path], { stdio: 'ignore' });
}

async function isReady(child: ChildProcess, host: string): Promise<boolean> {
  let failed = false;
  child.once('error', () => {
    failed = true;
  });
  const deadline = performance.now() + READY_WITHIN_MS;
  while (!failed && child.exitCode === null && performance.now() < deadline) {
    try {
      if ((await fetch(`http://${host}/v2/`)).ok) return true;
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
