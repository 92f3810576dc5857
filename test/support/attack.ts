import { execFile } from 'node:child_process';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** An action of another user during an export. */
export interface Attack {
  /** The function of node:fs (or `spawn`) that triggers it, if an argument is a path whose name begins with `name`. */
  readonly call: string;
  readonly name: string;
  /** Whether it runs after that call, or else before. */
  readonly after: boolean;
  /** A script for sh. */
  readonly script: string;
  readonly uid: number;
  /** A file that is created when it runs. */
  readonly marker: string;
}

/** Any user but root. */
export const MALLORY = 65_534;

/**
 * Exports or copies in a process of its own, by a job as `attack-child.ts` takes it, while another user acts.
 * @returns the code of the error that it ended with, or an empty string, and whether the attack ran
 */
export async function exportUnderAttack(
  options: object,
  attack: Omit<Attack, 'uid' | 'marker'>,
  directory: string,
): Promise<{ code: string; isAttacked: boolean }> {
  const marker = join(directory, 'attacked');
  const [hook, child] = ['attack-hook.js', 'attack-child.js'].map((name) => join(import.meta.dirname, name));
  const args = [...process.execArgv, '--import', hook!, child!, JSON.stringify(options)];
  const env = { ...process.env, ZPULL_TEST_ATTACK: JSON.stringify({ ...attack, uid: MALLORY, marker }) };
  const { stdout } = await promisify(execFile)(process.execPath, args, { env });
  return { code: stdout.trim(), isAttacked: existsSync(marker) };
}

/** Creates a directory of root with files that an export could damage; others may read and search it. */
export function makeSecrets(path: string): void {
  mkdirSync(join(path, 'sub'), { recursive: true, mode: 0o755 });
  for (const name of ['file', 'sub/file', 'secret'])
    writeFileSync(join(path, name), 'of root', { mode: 0o600 });
}

/** Creates a directory of the other user in a directory that they can reach. */
export function makeTheirs(path: string): void {
  mkdirSync(path, { mode: 0o755 });
  chownSync(path, MALLORY, MALLORY);
}

/** All that is below a directory and itself, a line each: type, mode, owner, times and content. */
export function stateOf(path: string): string[] {
  const { mode, uid, gid, mtimeMs } = lstatSync(path);
  const own = [path, mode.toString(8), uid, gid, mtimeMs].join(' ');
  if ((mode & 0o170000) !== 0o040000) return [`${own} ${readFileSync(path, 'latin1')}`];
  return [own, ...readdirSync(path).flatMap((name) => stateOf(join(path, name)))];
}
