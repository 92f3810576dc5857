import { join } from 'node:path';
import { ROOT } from './sources.js';

/** What node is to be given to run the command, before its own arguments. */
export const ZPULL: readonly string[] = [...process.execArgv, join(ROOT, 'bin', 'zpull.cjs')];
