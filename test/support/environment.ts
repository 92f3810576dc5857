import type { TestContext } from 'node:test';

/** What variables were before the running test set them: hooks run in the order in which they were added. */
const originals = new Map<string, string | undefined>();

/** Sets variables of this process, and so of its workers, until the test ends; then they are what they were. */
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
