import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { lstatSync, renameSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { modeFor, NO_ID, needsTar, ownerFor, xattrsFor } from '../../src/export/abilities.js';
import {
  DIRECTORY,
  FILE,
  fileBytesAt,
  headerAt,
  isRoot,
  NO_ROW,
  nameAt,
  pathAt,
} from '../../src/export/file-tree.js';
import { pathOfFd } from '../../src/files/guarded-directory.js';
import type { OpenDirectory } from '../../src/files/open-directory.js';
import { removeAt } from '../../src/files/remove-tree.js';
import { wrapFsError, wrapFsErrorAsync } from '../../src/files/storage-error.js';
import { PullError } from '../../src/format/error.js';
import { TAR_BLOCK_BYTES } from '../../src/format/tar-fields.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import { count } from '../../src/pool/counters.js';
import type { Abilities, TreeRows, WriteSpecialsResult, WriteSpecialsTask } from '../../src/pool/messages.js';
import { setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { TreeDirectories } from './tree-directories.js';

/** Directories that one run of tar has: that many descriptors are open here, and again in tar. */
const MAX_PLACES = 200;

/** tar's first descriptor behind the standard ones. */
const FIRST_FD = 3;

/** What tar gives directories until `finish-files`: they are for this user alone. */
const UNFINISHED = { mode: 0o700, uid: 0, gid: 0 } as const;

/** What tar says about files, one line each: beyond this nobody reads it. */
const MAX_WORDS = 64 * 1024;
const MAX_WARNINGS = 10;

/** Rows of which tar makes one after the other in one place: those of one directory, or a directory by itself. */
interface Job {
  readonly rows: readonly number[];
  readonly isDirectory: boolean;
}

/** Where tar works: a private directory beside what it makes, or the very directory whose attributes it sets. */
interface Place extends Job {
  readonly held: OpenDirectory;
}

/**
 * Has GNU tar make what Node has no call for. tar follows paths by itself, so it gets none that others could change: it works in private
 * directories, which are handed to it open, and what it made there is renamed to where it belongs.
 * @throws PullError `store-broken` when a file is not there afterwards: without a device a file system may serve, without
 *   a file's bytes it does not
 */
export async function writeSpecials(task: WriteSpecialsTask): Promise<WriteSpecialsResult> {
  const jobs = jobsOf(task);
  const warnings: string[] = [];
  const rows = new TreeDirectories(task);
  try {
    for (let at = 0; at < jobs.length; at += MAX_PLACES)
      warnings.push(...(await doJobs(task, rows, jobs.slice(at, at + MAX_PLACES))));
  } finally {
    rows.close();
  }
  return { warnings: warnings.slice(0, MAX_WARNINGS) };
}

function jobsOf({ tree, abilities }: WriteSpecialsTask): Job[] {
  const directories: Job[] = [];
  const byParent = new Map<number, number[]>();
  for (let row = 0; row < tree.count; row++) {
    if (!needsTar(tree, row, abilities)) continue;
    if (tree.type[row] === DIRECTORY) {
      directories.push({ rows: [row], isDirectory: true });
      continue;
    }
    const parent = tree.parent[row]!;
    const siblings = byParent.get(parent);
    if (siblings === undefined) byParent.set(parent, [row]);
    else siblings.push(row);
  }
  return [...directories, ...[...byParent.values()].map((rows) => ({ rows, isDirectory: false }))];
}

/** Has one tar do these; returns what it says. */
async function doJobs(
  task: WriteSpecialsTask,
  rows: TreeDirectories,
  jobs: readonly Job[],
): Promise<string[]> {
  const stage = `.zpull-${randomBytes(8).toString('hex')}`;
  const places: Place[] = [];
  try {
    for (const job of jobs) places.push({ ...job, held: openPath(task, rows, job, stage) });
    const lines = await runTar(task, places);
    for (const place of places.filter(({ isDirectory }) => !isDirectory))
      await moveOut(task, rows, place, lines[0]);
    return lines;
  } finally {
    for (const { held } of places) held.close();
    for (const { isDirectory, rows: made } of places)
      if (!isDirectory) await removeAt(rows.around(made[0]!), stage);
  }
}

function openPath(
  { tree }: WriteSpecialsTask,
  rows: TreeDirectories,
  job: Job,
  stage: string,
): OpenDirectory {
  const row = job.rows[0]!;
  if (job.isDirectory) return rows.directory(isRoot(tree, row) ? NO_ROW : row).open('.');
  const directory = rows.around(row);
  return wrapFsError(`make the directory ${directory.pathOf(stage)}`, () =>
    directory.make(stage, UNFINISHED.mode),
  );
}

/** Renames what tar made to where it belongs. */
async function moveOut(
  { tree, replace }: WriteSpecialsTask,
  rows: TreeDirectories,
  { held, rows: made }: Place,
  complaint: string | undefined,
): Promise<void> {
  const directory = rows.around(made[0]!);
  for (const [item, row] of made.entries()) {
    const from = held.at(String(item));
    const stat = lstatSync(from, { throwIfNoEntry: false });
    if (tree.type[row] === FILE && stat?.size !== fileBytesAt(tree, row)) {
      throw new PullError(
        'store-broken',
        `tar could not write ${pathAt(tree, row)}: ${complaint ?? 'it did not say why'}`,
        { hint: 'Make room at the destination, or choose one on another file system.' },
      );
    }
    const name = nameAt(tree, row);
    await wrapFsErrorAsync(`create ${directory.pathOf(name)}`, async () => {
      if (replace) await removeAt(directory, name);
      if (stat !== undefined) renameSync(from, directory.at(name));
    });
  }
}

/** Returns tar's lines, with the paths of the tree in the place of its own. */
async function runTar(task: WriteSpecialsTask, places: readonly Place[]): Promise<string[]> {
  const child = startTar(task, places);
  const words = gather(child);
  const ended = once(child, 'close');
  const failure: unknown = await pipeline(tarOf(task, places), child.stdin!).catch((error) => error);
  await ended;
  // tar that ended early has told why.
  if (failure !== undefined && !isBrokenPipe(failure)) throw failure;
  const lines = words()
    .split('\n')
    .filter((line) => line !== '');
  if (lines.length === 0) return lines;
  const paths = new Map<string, string>();
  for (const { name, row } of itemsOf(places)) paths.set(String(name), String(pathAt(task.tree, row)));
  return lines.map((line) => line.replace(NAME_IN_WORDS, (name) => paths.get(name) ?? name));
}

/** Where tar names a file: before what it says, or behind a system call that failed (`setxattrat: … for file 'NAME': …`). */
const NAME_IN_WORDS = /(?<=^tar: )[^:]+|(?<= for file ')[^']+/g;

function startTar({ abilities }: WriteSpecialsTask, places: readonly Place[]): ChildProcess {
  const attributes = ['--xattrs', '--xattrs-include=*'];
  const owners = abilities.owners ? ['--numeric-owner', '--same-owner'] : ['--no-same-owner'];
  const options = ['-x', '-f', '-', '-p', '--absolute-names', ...attributes, ...owners];
  const held = places.flatMap(({ held }) => held.shared.fd ?? []);
  return spawn('tar', options, {
    stdio: ['pipe', 'ignore', 'pipe', ...held],
    env: { ...process.env, LC_ALL: 'C' },
  });
}

function gather(child: ChildProcess): () => string {
  let words = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (words.length < MAX_WORDS) words += text;
  });
  return () => words;
}

/** Every row and the name by which tar finds it: a number in a directory that it has open, or that directory. */
function* itemsOf(places: readonly Place[]): Generator<{ name: Buffer; row: number }> {
  for (const [at, { held, rows, isDirectory }] of places.entries()) {
    const base = held.shared.fd === undefined ? held.self : Buffer.from(pathOfFd(FIRST_FD + at));
    for (const [item, row] of rows.entries()) {
      const name = Buffer.concat([base, Buffer.from(isDirectory ? '/.' : `/${item}`)]);
      yield { name, row };
    }
  }
}

/** A tar of what tar is to make. */
function* tarOf({ tree, abilities, layers }: WriteSpecialsTask, places: readonly Place[]): Generator<Buffer> {
  for (const { name, row } of itemsOf(places)) {
    const records = xattrsFor(tree, row, abilities);
    const mode = modeFor(tree, row, abilities);
    yield headerAt(tree, row, {
      name,
      records: records.length > 0 ? records : undefined,
      ...(tree.type[row] === DIRECTORY ? UNFINISHED : { mode, ...ownerOf(tree, row, abilities) }),
    });
    const sizeBytes = tree.sizeBytes[row]!;
    for (let done = 0; done < sizeBytes; ) {
      const part = layerSources(layers)[tree.layer[row]!]!.part(
        tree.contentStart[row]! + done,
        sizeBytes - done,
      );
      done += part.length;
      count(setup.counters, 'written', part.length);
      // The stream keeps what it is given until tar takes it.
      yield Buffer.from(part);
    }
    if (sizeBytes % TAR_BLOCK_BYTES > 0) yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

/** Whose tar makes a row: this process's where it is nobody else's, as tar knows no way to leave it. */
function ownerOf(tree: TreeRows, row: number, abilities: Abilities): { uid: number; gid: number } {
  const own = { uid: abilities.uid, gid: process.getgid?.() ?? 0 };
  const { uid, gid } = ownerFor(tree, row, abilities) ?? own;
  return { uid: uid === NO_ID ? own.uid : uid, gid: gid === NO_ID ? own.gid : gid };
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}
