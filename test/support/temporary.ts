import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** How long something that a test uses lives. */
export interface Lifetime {
  readonly after: (end: () => unknown) => void;
}

/** The path of a new empty directory that goes when the test, or the file, ends. */
export function temporaryDirectory(t: Lifetime): string {
  const path = mkdtempSync(join(tmpdir(), 'zpull-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
