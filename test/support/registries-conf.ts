import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setEnvironment } from './environment.js';
import { temporaryDirectory } from './temporary.js';

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
