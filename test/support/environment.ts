import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryDirectory } from './temporary.js';

/** The variables before the running test set them. Hooks run in the order in which they were added. */
const originals = new Map<string, string | undefined>();

/** Sets variables of this process and its workers, and restores them when the test ends. */
export function setEnvironment(t: TestContext, variables: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(variables)) if (!originals.has(name)) originals.set(name, process.env[name]);
  Object.assign(process.env, variables);
  t.after(() => {
    for (const [name, value] of originals) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    originals.clear();
  });
}

/** Makes this text the registries.conf of this process until the test ends. */
export function useRegistriesConf(t: TestContext, text: string): void {
  const path = join(temporaryDirectory(t), 'registries.conf');
  writeFileSync(path, text);
  setEnvironment(t, { CONTAINERS_REGISTRIES_CONF: path });
}

/** A registry with mirrors, each with lines of its own. */
export function registryTable(location: string, mirrors: readonly string[], more = ''): string {
  const tables = mirrors.map((mirror) => `[[registry.mirror]]\nlocation = ${JSON.stringify(mirror)}\n`);
  return `[[registry]]\nlocation = ${JSON.stringify(location)}\n${more}\n${tables.join('\n')}`;
}

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
