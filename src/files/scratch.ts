import { lstatSync, mkdtempSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isLeftBehind, pidNamespaceId } from './process-id.js';
import { removeTree } from './remove-tree.js';

/** Returns a new directory `bench-PID-NAMESPACE-RANDOM` in `parent`. @throws the system's own errors */
export function makeScratch(parent: string): string {
  return mkdtempSync(join(parent, `bench-${process.pid}-${pidNamespaceId()}-`));
}

/**
 * Returns the paths of the directories that `makeScratch` made in `parent` for processes of this user
 * that have ended: they were killed. @throws the system's own errors
 */
export function deadScratches(parent: string): string[] {
  return readdirSync(parent)
    .map((name) => join(parent, name))
    .filter(isDead);
}

function isDead(path: string): boolean {
  const [, pid, namespace = ''] = /\/bench-([1-9][0-9]{0,9})-([0-9a-f]*)-[0-9A-Za-z]{6}$/.exec(path) ?? [];
  if (pid === undefined) return false;
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory() !== true || (process.geteuid !== undefined && stat.uid !== process.geteuid()))
    return false;
  return isLeftBehind(Number(pid), namespace, stat.ctimeMs);
}

/** Deletes `deadScratches`, as far as possible: they are in nobody's way but for their size. */
export function removeDeadScratches(parent: string): void {
  for (const path of deadScratches(parent)) {
    try {
      removeTree(path);
    } catch {
      // `zpull store prune` says why.
    }
  }
}
