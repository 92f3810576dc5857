import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** For the `skip` of a test that mounts: false when it can, else why not. */
export function skipUnlessMount(): string | false {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'needs root on Linux, to mount a tmpfs';
  const path = mkdtempSync(join(tmpdir(), 'zpull-mount-'));
  try {
    mount(path, 2 ** 20);
    execFileSync('umount', [path]);
    return false;
  } catch {
    return 'cannot mount a tmpfs here (a container without CAP_SYS_ADMIN?)';
  } finally {
    rmSync(path, { recursive: true });
  }
}

/** A file system of its own of so many bytes, mounted at the returned path until the test ends. */
export function smallDisk(t: TestContext, sizeBytes: number): string {
  const path = mkdtempSync(join(tmpdir(), 'zpull-mount-'));
  mount(path, sizeBytes);
  t.after(() => {
    execFileSync('umount', ['--lazy', path]);
    rmSync(path, { recursive: true });
  });
  return path;
}

/** Makes the file system read-only. */
export function makeReadOnly(disk: string): void {
  execFileSync('mount', ['-o', 'remount,ro', disk], { stdio: 'pipe' });
}

/** Writes a file over all the space that is left, until there is none; returns its path. */
export function fillDisk(disk: string): string {
  const path = join(disk, 'filler');
  const fd = openSync(path, 'w');
  try {
    for (const block = Buffer.alloc(4096); ; ) writeSync(fd, block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(fd);
  }
  return path;
}

function mount(path: string, sizeBytes: number): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes},mode=0755`, 'tmpfs', path], {
    stdio: 'pipe',
  });
}
