import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, rmSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { needsTar, xattrsFor } from '../src/export/abilities.js';
import { DIRECTORY, FILE, pathAt, pathIn } from '../src/export/file-tree.js';
import { headerAt } from '../src/export/tar-item.js';
import { PullError } from '../src/format/error.js';
import { TAR_BLOCK_BYTES } from '../src/format/tar-fields.js';
import { TAR_END, tarPadding } from '../src/format/tar-writer.js';
import { count } from '../src/pool/counters.js';
import type { WriteSpecialsResult, WriteSpecialsTask } from '../src/pool/messages.js';
import { onDisk } from '../src/store/storage-error.js';
import { setup } from './context.js';
import { layerSources } from './layer-sources.js';
import { isThere } from './placing.js';

/** What tar says about files, one line each: beyond this nobody reads it. */
const MAX_WORDS = 64 * 1024;
const MAX_WARNINGS = 10;

/**
 * Has GNU tar make what Node has no call for: it gets a tar of just those entries. Names in it are those of the tree,
 * whose directories are all there and none of which is a link.
 * @throws PullError `store-broken` when a file is not there afterwards: without a device a file system may serve, without
 *   a file's bytes it does not
 */
export async function writeSpecials(task: WriteSpecialsTask): Promise<WriteSpecialsResult> {
  if (task.replace) makeWay(task);
  const child = startTar(task);
  const words = gather(child);
  const ended = once(child, 'close');
  await pipeline(tarOf(task), child.stdin!).catch((error: unknown) => {
    // tar that ended early has told why.
    if (!isBrokenPipe(error)) throw error;
  });
  await ended;
  const lines = words()
    .split('\n')
    .filter((line) => line !== '');
  const missing = missingFile(task);
  if (missing !== undefined) {
    throw new PullError(
      'store-broken',
      `tar could not write ${missing}: ${lines[0] ?? 'it did not say why'}`,
      {
        hint: 'Make room at the destination, or choose one on another file system.',
      },
    );
  }
  return { warnings: lines.slice(0, MAX_WARNINGS) };
}

/** What is there under the names of what tar is to make goes first: tar would leave a directory that is not empty. */
function makeWay({ tree, directory, abilities }: WriteSpecialsTask): void {
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] === DIRECTORY || !needsTar(tree, row, abilities)) continue;
    const path = pathIn(directory, tree, row);
    onDisk(`replace ${path}`, () => rmSync(path, { recursive: true, force: true }));
  }
}

function startTar({ directory, abilities }: WriteSpecialsTask): ChildProcess {
  const attributes = ['--xattrs', '--xattrs-include=*'];
  const owners = abilities.owners ? ['--numeric-owner', '--same-owner'] : ['--no-same-owner'];
  const options = ['-x', '-f', '-', '-p', ...attributes, ...owners, '-C', directory];
  return spawn('tar', options, { stdio: ['pipe', 'ignore', 'pipe'], env: { ...process.env, LC_ALL: 'C' } });
}

function gather(child: ChildProcess): () => string {
  let words = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (words.length < MAX_WORDS) words += text;
  });
  return () => words;
}

/** A tar of what tar is to make. */
function* tarOf({ tree, abilities }: WriteSpecialsTask): Generator<Buffer> {
  for (let row = 0; row < tree.count; row++) {
    if (!needsTar(tree, row, abilities)) continue;
    yield headerAt(tree, row, xattrsFor(tree, row, abilities));
    const sizeBytes = tree.sizeBytes[row]!;
    for (let done = 0; done < sizeBytes; ) {
      const part = layerSources()[tree.layer[row]!]!.part(tree.contentStart[row]! + done, sizeBytes - done);
      done += part.length;
      count(setup.counters, 'written', part.length);
      // The stream keeps what it is given until tar takes it.
      yield Buffer.from(part);
    }
    if (sizeBytes % TAR_BLOCK_BYTES > 0) yield tarPadding(sizeBytes);
  }
  yield TAR_END;
}

/** The first file that is not as long as it must be; what else is missing tar has told of. */
function missingFile({ tree, directory, abilities }: WriteSpecialsTask): string | undefined {
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] !== FILE || !needsTar(tree, row, abilities)) continue;
    const path = pathIn(directory, tree, row);
    if (!isThere(path) || lstatSync(path).size !== tree.sizeBytes[row]) return pathAt(tree, row).toString();
  }
  return undefined;
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
}
