import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OPTIONAL, skipUnlessThere } from './programs.js';
import type { Lifetime } from './temporary.js';

/** For the `skip` of a test of programs that load images into a place of their own, which takes root. */
export function skipUnlessRoot(...programs: readonly string[]): string | false {
  return skipUnlessThere(...programs) || (process.getuid?.() === 0 ? false : `${OPTIONAL}needs root`);
}

/** Runs a client of a daemon with this on its standard input; what it prints. */
export type Client = (input: Buffer, ...args: string[]) => Buffer;

export const NOTHING = Buffer.alloc(0);

/** A daemon that runs, and how its client finds it. */
export interface Daemon {
  readonly client: Client;
  readonly env: Readonly<Record<string, string>>;
}

/** Daemons answer after a second, or not at all. */
const MAX_START_MS = 60_000;

export function clientOf(
  program: string,
  options: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Client {
  return (input, ...args) =>
    execFileSync(program, [...options, ...args], {
      input,
      env: { ...process.env, ...env },
      stdio: 'pipe',
      maxBuffer: 64 * 2 ** 20,
    });
}

/** containerd with all its files in a directory of its own, until the test ends. Undefined when it does not start. */
export function startContainerd(t: Lifetime): Promise<Daemon | undefined> {
  const place = newPlace();
  const env = { CONTAINERD_ADDRESS: join(place, 'socket'), CONTAINERD_SNAPSHOTTER: 'native' };
  return start(t, place, 'containerd', containerdArguments(place), { client: clientOf('ctr', [], env), env });
}

/** dockerd with all its files in a directory of its own, until the test ends. Undefined when it does not start. */
export function startDockerd(t: Lifetime): Promise<Daemon | undefined> {
  const place = newPlace();
  const env = { DOCKER_HOST: `unix://${place}/socket`, DOCKER_CONFIG: join(place, 'client') };
  return start(t, place, 'dockerd', dockerdArguments(place), { client: clientOf('docker', [], env), env });
}

function newPlace(): string {
  return mkdtempSync(join(tmpdir(), 'zpull-test-'));
}

/** Undefined when the daemon ends before it answers, or never does: it lacks something that it needs of this system. */
async function start(
  t: Lifetime,
  place: string,
  program: string,
  args: readonly string[],
  daemon: Daemon,
): Promise<Daemon | undefined> {
  const child = spawn(program, args, { stdio: 'ignore' });
  const ended = once(child, 'close');
  // It writes there until it has ended.
  t.after(async () => {
    child.kill();
    await ended;
    rmSync(place, { recursive: true });
  });
  for (const startedMs = Date.now(); Date.now() - startedMs < MAX_START_MS && child.exitCode === null; ) {
    if (answers(daemon.client)) return daemon;
    await sleep(100);
  }
  return undefined;
}

function answers(client: Client): boolean {
  try {
    client(NOTHING, 'version');
    return true;
  } catch {
    return false;
  }
}

function containerdArguments(place: string): string[] {
  const config = join(place, 'containerd.toml');
  const lines = [
    'version = 2',
    `root = "${place}/root"`,
    `state = "${place}/state"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
    `[grpc]\naddress = "${place}/socket"`,
    `[ttrpc]\naddress = "${place}/ttrpc"`,
  ];
  writeFileSync(config, lines.join('\n'));
  return ['--config', config];
}

/** Without a network, which loading needs none of and which could change that of this machine. */
function dockerdArguments(place: string): string[] {
  const config = join(place, 'daemon.json');
  // In place of the machine's own.
  writeFileSync(config, '{}');
  const noNetwork = ['--bridge=none', '--iptables=false', '--ip6tables=false', '--ip-forward=false'];
  return [
    ...noNetwork,
    `--config-file=${config}`,
    `--data-root=${place}/data`,
    `--exec-root=${place}/exec`,
    `--pidfile=${place}/pid`,
    `--host=unix://${place}/socket`,
    // Mounts nothing.
    '--storage-driver=vfs',
  ];
}
