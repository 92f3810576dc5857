import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A test or a file of tests, at whose end `end` is called. */
export interface Lifetime {
  readonly after: (end: () => unknown) => void;
}

/** Returns the path of a new empty directory, deleted when the test or the file ends. */
export function temporaryDirectory(t: Lifetime): string {
  const path = mkdtempSync(join(tmpdir(), 'zpull-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
