import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The program as users start it, from dist/bench on. */
const PROGRAM = fileURLToPath(new URL('../../bin/zpull.cjs', import.meta.url));

/** Path of the command line, undefined where it is not built. */
export function commandLine(): string | undefined {
  return existsSync(PROGRAM) ? PROGRAM : undefined;
}
