import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** What takes something away. */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** Makes the file system of these layers' tars with GNU tar alone, which knows everything but whiteouts. */
export function applyLayers(tars: readonly string[], directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const tar of tars) {
    const names = execFileSync('tar', ['-tf', tar], { encoding: 'utf8' }).trimEnd().split('\n');
    for (const name of names) {
      const base = name.slice(name.lastIndexOf('/') + 1);
      const parent = join(directory, dirname(name));
      if (base === OPAQUE) {
        for (const child of readdirSync(parent)) rmSync(join(parent, child), { recursive: true });
      } else if (base.startsWith(WHITEOUT)) {
        rmSync(join(parent, base.slice(WHITEOUT.length)), { recursive: true });
      } else if (base !== '' && lstatSync(join(parent, base), { throwIfNoEntry: false })?.isDirectory()) {
        // tar itself would not put a file in the place of a directory that is not empty.
        rmSync(join(parent, base), { recursive: true });
      }
    }
    const options = ['-p', '--numeric-owner', '--xattrs', '--xattrs-include=*', '--exclude=.wh.*'];
    execFileSync('tar', ['-xf', tar, '-C', directory, ...options]);
  }
}
