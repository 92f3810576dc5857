import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from './docker-registry.js';
import { temporaryDirectory } from './temporary.js';

/** A request in nginx's log; an absent header is `-`. */
interface Logged {
  readonly status: number;
  readonly range: string;
  readonly authorization: string;
  readonly uri: string;
}

interface Nginx {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Completed requests. */
  log(): Logged[];
}

const READY_WITHIN_MS = 20_000;
const POLL_MS = 20;

/**
 * Starts nginx on a free loopback port over the files in `root`, with more lines for its server, like `max_ranges 0;`
 * or `limit_req zone=each;` (ten requests a second). It ends with the test.
 */
export async function startNginx(t: TestContext, root: string, lines = ''): Promise<Nginx> {
  const directory = temporaryDirectory(t);
  const port = await freePort();
  mkdirSync(join(directory, 'tmp'));
  writeFileSync(join(directory, 'nginx.conf'), configuration(root, port, lines));
  const options = ['-p', directory, '-c', 'nginx.conf', '-e', 'error.log', '-g', 'daemon off;'];
  const child = spawn('nginx', options, { stdio: 'ignore' });
  t.after(() => end(child));
  await ready(child, port);
  const path = join(directory, 'access.log');
  const log = (): Logged[] => {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    return text.split('\n').flatMap((line) => (line === '' ? [] : [parseLine(line)]));
  };
  return { host: `127.0.0.1:${port}`, log };
}

/** One process, so that it has the permissions of the test's user. */
function configuration(root: string, port: number, lines: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path tmp;`,
  );
  return `
    master_process off;
    pid nginx.pid;
    events {}
    http {
      ${temporary.join('\n')}
      log_format asked '$status|$http_range|$http_authorization|$uri';
      access_log access.log asked;
      limit_req_zone $binary_remote_addr zone=each:1m rate=10r/s;
      server { listen 127.0.0.1:${port}; root ${root}; ${lines} }
    }`;
}

function parseLine(line: string): Logged {
  const [status = '', range = '', authorization = '', uri = ''] = line.split('|');
  return { status: Number(status), range, authorization, uri };
}

async function ready(child: ChildProcess, port: number): Promise<void> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (performance.now() < deadline && child.exitCode === null) {
    const socket = connect(port, '127.0.0.1');
    const [event] = await Promise.race([
      once(socket, 'connect').then(() => ['connect']),
      once(socket, 'error').catch(() => ['error']),
    ]).catch(() => ['error']);
    socket.destroy();
    if (event === 'connect') return;
    await sleep(POLL_MS);
  }
  throw new Error('nginx did not start');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
