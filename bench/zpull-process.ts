import { commandLine } from './command-line.js';
import { finish, startNode } from './process.js';

/** Runs the program as users do, quietly; its seconds. @throws Error when it fails */
export async function runZpull(...args: readonly string[]): Promise<number> {
  const program = commandLine();
  if (program === undefined) throw new Error('bin/zpull.cjs is absent');
  const { code, signal, stderr, wallMs } = await finish(startNode([program, ...args, '-q']));
  if (code !== 0) throw new Error(`zpull ${args[0]} ended with ${signal ?? code}: ${stderr.slice(-4000)}`);
  return wallMs / 1000;
}
