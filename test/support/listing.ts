import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tarEntries } from '../../src/format/tar-entries.js';
import { sourceOf } from './tars.js';

/** Tars of tests are small. */
const MAX_TAR_BYTES = 64 * 2 ** 20;

/** A line an entry of a tar, sorted: type, mode, owner, time, size, link, attributes, hash of the content, path. */
export function listTar(tar: Buffer): string[] {
  const lines: string[] = [];
  for (const { entry, contentStart, contentBytes } of tarEntries(sourceOf(tar))) {
    const { type, mode, uid, gid, mtime, linkName, devMajor, devMinor, xattrs } = entry;
    const content = tar.subarray(contentStart, contentStart + contentBytes);
    // Node sets microseconds.
    const time = `${mtime.seconds}.${String(Math.floor(mtime.nanos / 1000)).padStart(6, '0')}`;
    const attributes = [...xattrs].map(([name, value]) => `${name}=${value.toString('hex')}`).sort();
    lines.push(
      [
        normal(entry.name),
        type,
        // The system decides the mode of a symbolic link.
        type === '2' ? '-' : mode.toString(8),
        `${uid}:${gid}`,
        time,
        contentBytes,
        createHash('sha256').update(content).digest('hex').slice(0, 12),
        type === '1' ? normal(linkName) : linkName.toString('latin1'),
        type === '3' || type === '4' ? `${devMajor},${devMinor}` : '',
        attributes.join(' '),
      ].join(' | '),
    );
  }
  return lines.sort();
}

/** As `listTar` for a directory, through GNU tar, which records everything. Without the root itself. */
export function listDirectory(directory: string): string[] {
  const options = ['--xattrs', '--xattrs-include=*', '--format=posix', '--sort=name', '--numeric-owner'];
  const times = ['--pax-option=delete=atime,delete=ctime'];
  const tar = execFileSync('tar', [...options, ...times, '-C', directory, '-cf', '-', '.'], {
    maxBuffer: MAX_TAR_BYTES,
  });
  return listTar(tar).filter((line) => !line.startsWith(' | '));
}

/** Compares listings. Directories that tar touched after it had set their times, or made up, have the time of the test. */
export function assertSameTree(
  actual: readonly string[],
  expected: readonly string[],
  startedMs: number,
): void {
  const fieldsOf = (line: string) => line.split(' | ');
  const isOfNow = (line: string) => Number(fieldsOf(line)[4]) * 1000 >= startedMs - 1000;
  const now = new Set(expected.filter(isOfNow).map((line) => fieldsOf(line)[0]));
  assert.ok(now.size < expected.length / 2);
  const comparable = (lines: readonly string[]) =>
    lines.map((line) => (now.has(fieldsOf(line)[0]) ? fieldsOf(line).toSpliced(4, 1).join(' | ') : line));
  assert.deepEqual(comparable(actual), comparable(expected));
}

function normal(name: Buffer): string {
  return name.toString('latin1').replace(/^(\.?\/)+|^\.$|\/+$/g, '');
}

/** The prefix of whiteouts. */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** Creates the file system of these layers' tars with GNU tar, which knows everything but whiteouts. */
export function applyLayers(tars: readonly string[], directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const tar of tars) {
    const names = execFileSync('tar', ['-tf', tar], { encoding: 'utf8' }).trimEnd().split('\n');
    for (const name of names) {
      const base = name.slice(name.lastIndexOf('/') + 1);
      const parent = join(directory, dirname(name));
      if (base === OPAQUE) {
        for (const child of readdirSync(parent)) rmSync(join(parent, child), { recursive: true });
      } else if (base.startsWith(WHITEOUT)) {
        rmSync(join(parent, base.slice(WHITEOUT.length)), { recursive: true });
      } else if (base !== '' && lstatSync(join(parent, base), { throwIfNoEntry: false })?.isDirectory()) {
        // tar itself would not put a file in the place of a directory that is not empty.
        rmSync(join(parent, base), { recursive: true });
      }
    }
    const options = ['-p', '--numeric-owner', '--xattrs', '--xattrs-include=*', '--exclude=.wh.*'];
    execFileSync('tar', ['-xf', tar, '-C', directory, ...options]);
  }
}
