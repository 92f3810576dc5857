import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { linkSignals, throwIfAborted } from '../format/abort.js';
import { PullError, quote } from '../format/error.js';
import type { StreamPort, TreeRows } from '../pool/messages.js';
import {
  damageOf,
  type ExportOptions,
  INTERRUPTED,
  totalTarBytes,
  withExport,
  withFilesExport,
} from './export-run.js';
import {
  boundsAt,
  DIRECTORY,
  FILE,
  fileBytesAt,
  HARD_LINK,
  headerAt,
  linkAt,
  pathAt,
  SYMLINK,
} from './file-tree.js';

/** A layer needs no more threads than one that reads and hashes it. */
const LAYER_THREADS = 1;

interface TreeOptions extends ExportOptions {
  /** Path in the image of a file or directory; default: all of it. */
  readonly path?: string | undefined;
}

/**
 * Yields the file system of the layers as one tar, the same bytes for the same layers, in blocks of
 * 1 MiB at most. The last block comes after all layers are proven. Starts threads with the first
 * `next`, and ends them with `return`.
 * @throws PullError as `exportTar`
 */
export function streamTar(options: TreeOptions): AsyncGenerator<Buffer, void, undefined> {
  return sendTar(options, () => {});
}

/** `check` may refuse the file system before any of it is sent. */
function sendTar(
  options: TreeOptions,
  check: (tree: TreeRows) => void,
): AsyncGenerator<Buffer, void, undefined> {
  return proven(options.signal, (signal, to) =>
    withFilesExport({ ...options, signal }, async ({ pool, prove, proven: whenProven }) => {
      const tree = await pool.run({ task: 'flatten', intoFiles: false, path: options.path });
      check(tree);
      const writing = pool.run({ task: 'write-tar', tree, to }, [to.port]);
      // One thread writes the tar, the others hash the layers.
      void prove();
      await writing;
      await whenProven();
    }),
  );
}

/**
 * Yields the tar of a layer, whose DiffID is the only one of `options`, as `streamTar` does.
 * @throws PullError `digest-mismatch` when the layer is damaged, `store-broken` when it is missing
 */
export function streamLayer(options: ExportOptions): AsyncGenerator<Buffer, void, undefined> {
  return proven(options.signal, (signal, to) =>
    withExport(
      { ...options, signal },
      async ({ pool, layers, stages }) => {
        const layer = layers[0]!;
        const { digest } = await pool.run({ task: 'stream-layer', extents: layer.extents, to }, [to.port]);
        if (digest !== layer.diffId) throw await damageOf(pool, layer);
        stages.clock.addBytes('prove', totalTarBytes(layers));
      },
      LAYER_THREADS,
    ),
  );
}

/** Yields what `send` sends to the port, its last block when `send` has resolved. */
async function* proven(
  given: AbortSignal | undefined,
  send: (signal: AbortSignal, to: StreamPort) => Promise<void>,
): AsyncGenerator<Buffer, void, undefined> {
  throwIfAborted(given, INTERRUPTED);
  const ending = linkSignals(given);
  const { port1, port2 } = new MessageChannel();
  const received = new ReceivedBlocks(port1);
  const sending = send(ending.signal, { port: port2 }).then(
    () => received.end(),
    (error: unknown) => received.fail(error),
  );
  let last: Buffer | undefined;
  try {
    for (let block = await received.next(); block !== undefined; block = await received.next()) {
      if (last !== undefined) yield last;
      last = block;
    }
    if (last !== undefined) yield last;
  } finally {
    ending.abort();
    ending.unlink();
    await sending;
    port1.close();
  }
}

/** Blocks from a worker, in order, whose end or failure comes by another way. */
class ReceivedBlocks {
  readonly #port: MessagePort;
  readonly #blocks: Buffer[] = [];
  #outcome: { readonly error: unknown } | 'ended' | undefined;
  #wake: () => void = () => {};

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', (block: ArrayBuffer) => {
      this.#blocks.push(Buffer.from(block));
      this.#wake();
    });
  }

  /** The worker has sent everything: what is left in the port is read now. */
  end(): void {
    for (;;) {
      const left = receiveMessageOnPort(this.#port);
      if (left === undefined) break;
      this.#blocks.push(Buffer.from(left.message as ArrayBuffer));
    }
    this.#settle('ended');
  }

  fail(error: unknown): void {
    this.#settle({ error });
  }

  /** The next block, or undefined after the last one. @throws the failure */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      if (typeof this.#outcome === 'object') throw this.#outcome.error;
      const block = this.#blocks.shift();
      if (block !== undefined) {
        this.#port.postMessage(null);
        return block;
      }
      if (this.#outcome === 'ended') return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #settle(outcome: { readonly error: unknown } | 'ended'): void {
    this.#outcome = outcome;
    this.#wake();
  }
}

/** What an entry of a file system is. */
export type FileType =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'hardlink'
  | 'character-device'
  | 'block-device'
  | 'fifo';

/** An entry of an image's file system. */
export interface FileEntry {
  /** Without a slash at either end; `.` for the root. Bytes that are not UTF-8 become U+FFFD. */
  readonly path: string;
  readonly type: FileType;
  /** Length of a file, holes included; 0 for anything else. */
  readonly sizeBytes: number;
  /** Permissions, as in `0o755`. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since 1970. */
  readonly mtimeMs: number;
  /** Where a symbolic link points to, or the path of a hard link's file. */
  readonly target?: string;
}

const TYPES: Readonly<Record<number, FileType>> = {
  [FILE]: 'file',
  [HARD_LINK]: 'hardlink',
  [SYMLINK]: 'symlink',
  [DIRECTORY]: 'directory',
  [0x33]: 'character-device',
  [0x34]: 'block-device',
  [0x36]: 'fifo',
};

/**
 * Lists the file system of the layers, a directory before its entries, names sorted by their bytes.
 * All layers are hashed.
 * @throws PullError as `exportTar`
 */
export function listFiles(options: TreeOptions): Promise<FileEntry[]> {
  return withFilesExport(options, async ({ pool, prove, proven: whenProven }) => {
    const flattening = pool.run({ task: 'flatten', intoFiles: false, path: options.path });
    void prove();
    const tree = await flattening;
    await whenProven();
    return Array.from({ length: tree.count }, (_, row) => entryAt(tree, row));
  });
}

function entryAt(tree: TreeRows, row: number): FileEntry {
  const type = tree.type[row]!;
  const target = type === HARD_LINK ? pathAt(tree, tree.target[row]!) : linkAt(tree, row);
  return {
    path: pathAt(tree, row).toString() || '.',
    type: TYPES[type]!,
    sizeBytes: type === FILE ? fileBytesAt(tree, row) : 0,
    mode: tree.mode[row]!,
    uid: tree.uid[row]!,
    gid: tree.gid[row]!,
    mtimeMs: tree.mtimeSeconds[row]! * 1000 + tree.mtimeNanos[row]! / 1e6,
    ...((type === HARD_LINK || type === SYMLINK) && { target: target.toString() }),
  };
}

/**
 * Reads the file at the path, links followed, and proves all layers.
 * @throws PullError as `exportTar`; `path-not-found` when it is no file, `unsupported` when it is
 *   longer than `maxBytes`
 */
export async function readFile(options: ExportOptions & FileToRead): Promise<Buffer> {
  const blocks: Buffer[] = [];
  let file: TreeRows | undefined;
  const check = (tree: TreeRows) => {
    checkFile(tree, options);
    file = tree;
  };
  for await (const block of sendTar({ ...options, path: options.only }, check)) blocks.push(block);
  return contentOf(file!, Buffer.concat(blocks));
}

interface FileToRead {
  /** Path in the image, for errors. */
  readonly path: string;
  /** The same path where the layers have other files too. */
  readonly only: string | undefined;
  /** Limit of the file's length. */
  readonly maxBytes: number;
}

function checkFile(tree: TreeRows, { path, maxBytes }: FileToRead): void {
  if (tree.count !== 1 || tree.type[0] !== FILE) {
    throw new PullError('path-not-found', `${quote(path)} is not a file in the image`, {
      hint: 'list the image to see what is there',
    });
  }
  const fileBytes = fileBytesAt(tree, 0);
  if (fileBytes <= maxBytes) return;
  throw new PullError('unsupported', `${quote(path)} has ${fileBytes} bytes; the limit is ${maxBytes}`, {
    hint: 'read it as a stream with tar(), or raise maxBytes',
  });
}

/** The content of the only file of a tree, from its tar. */
function contentOf(tree: TreeRows, tar: Buffer): Buffer {
  const start = headerAt(tree, 0).length;
  const content = tar.subarray(start, start + tree.sizeBytes[0]!);
  const bounds = boundsAt(tree, 0);
  if (bounds === undefined) return content;
  const file = Buffer.alloc(fileBytesAt(tree, 0));
  for (let i = 0, at = 0; i < bounds.length; i += 2) {
    const end = at + bounds[i + 1]! - bounds[i]!;
    content.copy(file, bounds[i]!, at, end);
    at = end;
  }
  return file;
}
