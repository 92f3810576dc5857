import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The path of a new empty directory that goes when this process ends. */
export function scratchDirectory(name: string): string {
  const path = mkdtempSync(join(tmpdir(), `zpull-fuzz-${name}-`));
  process.on('exit', () => rmSync(path, { recursive: true, force: true }));
  return path;
}
