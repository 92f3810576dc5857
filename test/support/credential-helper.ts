import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setEnvironment } from './environment.js';
import { temporaryDirectory } from './temporary.js';

/**
 * Puts a shell script on PATH as `docker-credential-NAME` until the test ends. It has the server it is asked for in
 * `$server`.
 * @returns the directory that it lies in
 */
export function installHelper(t: TestContext, name: string, script: string): string {
  const directory = join(temporaryDirectory(t), 'bin');
  mkdirSync(directory);
  const path = join(directory, `docker-credential-${name}`);
  writeFileSync(path, `#!/bin/sh\nread -r server\n${script}\n`, { mode: 0o755 });
  setEnvironment(t, { PATH: `${directory}${delimiter}${process.env['PATH'] ?? ''}` });
  return directory;
}
