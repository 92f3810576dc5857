import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * For the `skip` of a test that needs these programs: false when all are on PATH, else the reason with the Debian
 * packages to install. Each of the programs the tests use is in the package of its own name.
 */
export function skipUnless(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isOnPath(program));
  return missing.length === 0 ? false : `not installed: apt-get install ${missing.join(' ')}`;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
