import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What another user may put under the name of a file. */
export const KINDS = ['fifo', 'zeros', 'link', 'dangling', 'directory', 'huge'] as const;
export type Kind = (typeof KINDS)[number] | 'hard link';

/** More than the test allows a process that reads all of it; holes cost no room. */
const HUGE_BYTES = 640 * 2 ** 20;

/** Replaces these paths by files of this kind; links lead to `secret`. */
export function plant(kind: Kind, paths: readonly string[], secret: string): void {
  for (const path of paths) rmSync(path, { force: true, recursive: true });
  if (kind === 'fifo') execFileSync('mkfifo', [...paths]);
  for (const path of paths) {
    if (kind === 'zeros') symlinkSync('/dev/zero', path);
    else if (kind === 'link') symlinkSync(secret, path);
    else if (kind === 'hard link') linkSync(secret, path);
    else if (kind === 'dangling') symlinkSync(`${secret}-made-by-others`, path);
    else if (kind === 'directory') {
      mkdirSync(path);
      writeFileSync(join(path, 'kept'), '');
    } else if (kind === 'huge') {
      writeFileSync(path, '');
      truncateSync(path, HUGE_BYTES);
    }
  }
}
