import type { FileEntry } from '../export/export-streams.js';
import { PullError } from '../format/error.js';
import { pullImage, pullPath } from '../pull/pull.js';
import type { RunOptions } from '../pull/pull-options.js';

export type { FileEntry, FileType } from '../export/export-streams.js';

/** Which part of an image. */
export interface FileQuery {
  /** Path in the image of a file or directory; default: all of it. */
  readonly path?: string;
}

/** A file of this length fits in memory a few times; longer ones should be streamed. */
const MAX_FILE_BYTES = 64 * 2 ** 20;

/** What exports take from the options of a pull. */
interface Layers {
  readonly store: string;
  readonly diffIds: readonly string[];
  readonly signal?: AbortSignal;
}

/** The layers that have what is at the path, and whether they have nothing else. */
async function pullFor(
  image: string,
  path: string | undefined,
  options: RunOptions,
): Promise<Layers & { readonly isPicked: boolean }> {
  const { store, signal } = options;
  const given = { store, ...(signal && { signal }) };
  if (path === undefined) {
    const { layers } = await pullImage(image, options);
    return { ...given, diffIds: layers.map(({ diffId }) => diffId), isPicked: false };
  }
  const { diffIds, isPicked } = await pullPath(image, { path, asRoot: false }, options);
  return { ...given, diffIds, isPicked };
}

/** As `Client.tar`. */
export async function tarOf(
  image: string,
  path: string | undefined,
  options: RunOptions,
): Promise<AsyncGenerator<Buffer, void, undefined>> {
  const { isPicked, ...layers } = await pullFor(image, path, options);
  const { streamTar } = await import('../export/export-streams.js');
  return streamTar({ ...layers, path: isPicked ? undefined : path });
}

/** As `Client.list`. */
export async function listImage(
  image: string,
  path: string | undefined,
  options: RunOptions,
): Promise<FileEntry[]> {
  const { isPicked, ...layers } = await pullFor(image, path, options);
  const { listFiles } = await import('../export/export-streams.js');
  return listFiles({ ...layers, path: isPicked ? undefined : path });
}

/** As `Client.readFile`. */
export async function readImageFile(
  image: string,
  path: string,
  maxBytes: number = MAX_FILE_BYTES,
  options: RunOptions,
): Promise<Buffer> {
  if (typeof path !== 'string' || path === '') {
    throw new PullError('option-malformed', 'path must be a string with at least one character');
  }
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) {
    throw new PullError('option-malformed', `maxBytes must be a whole number, not ${String(maxBytes)}`);
  }
  const { isPicked, ...layers } = await pullFor(image, path, options);
  const { readFile } = await import('../export/export-streams.js');
  return readFile({ ...layers, path, only: isPicked ? undefined : path, maxBytes });
}
