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
import { type OpenDirectory, removeAt } from '../../src/files/open-directory.js';
import { pathOfFd } from '../../src/files/resolve-path.js';
import {
  asOutOfResources,
  storageError,
  wrapFsError,
  wrapFsErrorAsync,
} from '../../src/files/storage-error.js';
import { PullError } from '../../src/format/error.js';
import { TAR_BLOCK_BYTES } from '../../src/format/tar-fields.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type { Abilities, TreeRows, WriteSpecialsResult, WriteSpecialsTask } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { TreeDirectories } from './tree-directories.js';

/** Limit of directories of one run of tar: each is an open descriptor here and in tar. */
const MAX_DIRECTORIES = 200;

/** tar's first descriptor after the standard ones. */
const FIRST_FD = 3;

/** Attributes of directories until `finish-files`: access for this user alone. */
const UNFINISHED = { mode: 0o700, uid: 0, gid: 0 } as const;

/** Limits of tar's messages about files: nobody reads more. */
const MAX_OUTPUT_CHARS = 64 * 1024;
const MAX_WARNINGS = 10;

/**
 * Rows that tar creates in one working directory: special files of one directory, or a directory
 * itself.
 */
interface Job {
  readonly rows: readonly number[];
  readonly isDirectory: boolean;
}

/**
 * A job with tar's working directory: a private one beside the files, or the directory of the job
 * itself.
 */
interface WorkDirectory extends Job {
  readonly held: OpenDirectory;
}

/**
 * Has GNU tar create what Node cannot. tar follows paths, so it gets none that other users could
 * change: it works in private directories, which it inherits open, and the results are renamed
 * afterwards.
 * @throws PullError `store-broken` when a file is missing or too short afterwards; a missing device
 *   is no error
 */
export async function writeSpecials(task: WriteSpecialsTask): Promise<WriteSpecialsResult> {
  const jobs = jobsOf(task);
  const warnings: string[] = [];
  const rows = new TreeDirectories(task);
  try {
    for (let at = 0; at < jobs.length; at += MAX_DIRECTORIES)
      warnings.push(...(await doJobs(task, rows, jobs.slice(at, at + MAX_DIRECTORIES))));
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

/** Runs one tar for these jobs; returns its messages. */
async function doJobs(
  task: WriteSpecialsTask,
  rows: TreeDirectories,
  jobs: readonly Job[],
): Promise<string[]> {
  const stage = `.zpull-${randomBytes(8).toString('hex')}`;
  const directories: WorkDirectory[] = [];
  try {
    for (const job of jobs) directories.push({ ...job, held: openWorkDirectory(task, rows, job, stage) });
    const lines = await runTar(task, directories);
    for (const directory of directories.filter(({ isDirectory }) => !isDirectory))
      await moveOut(task, rows, directory, lines[0]);
    return lines;
  } finally {
    for (const { held } of directories) held.close();
    for (const { isDirectory, rows: made } of directories)
      if (!isDirectory) await removeAt(rows.around(made[0]!), stage);
  }
}

function openWorkDirectory(
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

/** Renames what tar created to its final names. */
async function moveOut(
  { tree, replace }: WriteSpecialsTask,
  rows: TreeDirectories,
  { held, rows: made }: WorkDirectory,
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

/** Runs tar. Returns the lines of its messages, with its paths replaced by those of the tree. */
async function runTar(task: WriteSpecialsTask, directories: readonly WorkDirectory[]): Promise<string[]> {
  const child = startTar(task, directories);
  const output = collectOutput(child);
  const ended = once(child, 'close');
  ended.catch(() => {}); // tar did not start: thrown below, after `pipeline` has failed
  const failure: unknown = await pipeline(tarOf(task, directories), child.stdin!).catch((error) => error);
  await ended.catch((error: unknown) => {
    throw storageError(asOutOfResources(error), 'start tar');
  });
  // After a broken pipe, tar's messages have the reason.
  if (failure !== undefined && !isBrokenPipe(failure)) throw failure;
  const lines = output()
    .split('\n')
    .filter((line) => line !== '');
  if (lines.length === 0) return lines;
  const paths = new Map<string, string>();
  for (const { name, row } of itemsOf(directories)) paths.set(String(name), String(pathAt(task.tree, row)));
  return lines.map((line) => line.replace(NAME_IN_MESSAGE, (name) => paths.get(name) ?? name));
}

/** File names in tar's messages: `tar: NAME: …` and `tar: setxattrat: … for file 'NAME': …`. */
const NAME_IN_MESSAGE = /(?<=^tar: )[^:]+|(?<= for file ')[^']+/g;

function startTar({ abilities }: WriteSpecialsTask, directories: readonly WorkDirectory[]): ChildProcess {
  const attributes = ['--xattrs', '--xattrs-include=*'];
  const owners = abilities.owners ? ['--numeric-owner', '--same-owner'] : ['--no-same-owner'];
  const options = ['-x', '-f', '-', '-p', '--absolute-names', ...attributes, ...owners];
  const held = directories.flatMap(({ held }) => held.shared.fd ?? []);
  return spawn('tar', options, {
    stdio: ['pipe', 'ignore', 'pipe', ...held],
    env: { ...process.env, LC_ALL: 'C' },
  });
}

function collectOutput(child: ChildProcess): () => string {
  let output = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (output.length < MAX_OUTPUT_CHARS) output += text;
  });
  return () => output;
}

/**
 * Yields every row and its name for tar: a number in an inherited directory, or that directory
 * itself.
 */
function* itemsOf(directories: readonly WorkDirectory[]): Generator<{ name: Buffer; row: number }> {
  for (const [at, { held, rows, isDirectory }] of directories.entries()) {
    const base = held.shared.fd === undefined ? held.self : Buffer.from(pathOfFd(FIRST_FD + at));
    for (const [item, row] of rows.entries()) {
      const name = Buffer.concat([base, Buffer.from(isDirectory ? '/.' : `/${item}`)]);
      yield { name, row };
    }
  }
}

/** Yields the tar that tar extracts. */
function* tarOf(
  { tree, abilities, layers }: WriteSpecialsTask,
  directories: readonly WorkDirectory[],
): Generator<Buffer> {
  for (const { name, row } of itemsOf(directories)) {
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
      threadClock.addBytes('write', part.length);
      // Copied, as the stream keeps it until tar has read it.
      yield Buffer.from(part);
    }
    if (sizeBytes % TAR_BLOCK_BYTES > 0) yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

/**
 * Returns the owner of a row for tar, which cannot leave an owner unchanged: then that of this
 * process.
 */
function ownerOf(tree: TreeRows, row: number, abilities: Abilities): { uid: number; gid: number } {
  const own = { uid: abilities.uid, gid: process.getgid?.() ?? 0 };
  const { uid, gid } = ownerFor(tree, row, abilities) ?? own;
  return { uid: uid === NO_ID ? own.uid : uid, gid: gid === NO_ID ? own.gid : gid };
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}
