import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** How long something that a test uses lives. */
export interface Lifetime {
  readonly after: (end: () => unknown) => void;
}

/** That of all tests of a file, for what they share and leave as it is. */
export const FILE: Lifetime = { after };

/** The path of a new empty directory that goes when the test, or the file, ends. */
export function temporaryDirectory(t: Lifetime): string {
  const path = mkdtempSync(join(tmpdir(), 'zpull-test-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
