import { randomBytes } from 'node:crypto';
import { lstatSync, readdirSync } from 'node:fs';
import { chmod, lstat, readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { hasProcess, placeOfProcesses } from '../store/processes.js';

const SLASH = Buffer.from('/');

/** Not changed for so long, it is nobody's, wherever its process was. */
const ABANDONED_MS = 24 * 3_600_000;

/**
 * A name beside `path` for what is to become it, which no other export has, be it of this process. What is there under such names of
 * processes that were killed is deleted first, as far as it can be.
 */
export async function unfinishedName(path: string): Promise<string> {
  const directory = dirname(path);
  const prefix = `${basename(path)}.part-`;
  for (const name of namesIn(directory)) {
    if (!name.startsWith(prefix) || !isLeft(join(directory, name), name.slice(prefix.length))) continue;
    await removeUnfinished(join(directory, name));
  }
  return `${path}.part-${process.pid}-${placeOfProcesses()}-${randomBytes(4).toString('hex')}`;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // whoever writes there says why it cannot be
  }
}

/**
 * The number of a process says nothing about those of another container or another machine; and in containers every process may
 * have the same one, one after the other. Asked for is the time of the last change, which no layer can set.
 */
function isLeft(path: string, holder: string): boolean {
  const [, pid, place] = /^([1-9][0-9]{0,9})-([0-9a-f]*)-[0-9a-f]{8}$/.exec(holder) ?? [];
  if (pid === undefined) return false;
  const isHere = place !== '' && place === placeOfProcesses();
  if (isHere && Number(pid) !== process.pid) return !hasProcess(Number(pid));
  const agoMs = isHere ? 1000 * process.uptime() : ABANDONED_MS;
  const changedMs = lstatSync(path, { throwIfNoEntry: false })?.ctimeMs;
  return changedMs !== undefined && Date.now() - changedMs > agoMs;
}

/**
 * Deletes what was not finished, as far as this user may: what it was left for has an error of its own. Names are bytes, and
 * directories may be closed already.
 */
export async function removeUnfinished(path: string | Buffer): Promise<void> {
  const remove = () => rm(path, { recursive: true, force: true });
  await remove()
    .catch(() => openDirectories(Buffer.from(path)).then(remove))
    .catch(() => {});
}

/** The same with all that is in a directory, but for itself. */
export async function emptyDirectory(path: string): Promise<void> {
  for (const entry of await entriesOf(Buffer.from(path)).catch(() => [])) await removeUnfinished(entry);
}

async function openDirectories(path: Buffer): Promise<void> {
  if (!(await lstat(path)).isDirectory()) return;
  await chmod(path, 0o700);
  for (const entry of await entriesOf(path)) await openDirectories(entry);
}

async function entriesOf(directory: Buffer): Promise<Buffer[]> {
  const names = await readdir(directory, { encoding: 'buffer' });
  return names.map((name) => Buffer.concat([directory, SLASH, name]));
}
