import { join } from 'node:path';
import { isOnPath } from '../../workers/opaque/zstd-engine.js';
import { ROOT } from './sources.js';

/** The arguments of node that run the command, before the command's own. */
export const ZPULL: readonly string[] = [...process.execArgv, join(ROOT, 'bin', 'zpull.cjs')];

/**
 * For the `skip` of a test that needs these programs: false when all are on PATH, else the reason with the Debian
 * packages to install. Most of the programs the tests use are in the package of their own name.
 */
export function skipUnless(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isOnPath(program));
  const packages = missing.map((program) => PACKAGES[program] ?? program);
  return missing.length === 0 ? false : `not installed: apt-get install ${packages.join(' ')}`;
}

/** The prefix of the reasons of skips that CI accepts. */
export const OPTIONAL = 'optional: ';

/** As `skipUnless`, for programs that .ci/run does not install: they are in no Debian release, or large. */
export function skipUnlessThere(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => !isOnPath(program));
  return missing.length === 0 ? false : `${OPTIONAL}not installed: ${missing.join(' ')}`;
}

const PACKAGES: Readonly<Record<string, string>> = { htpasswd: 'apache2-utils' };
