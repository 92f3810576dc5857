import { closeSync, openSync, readSync } from 'node:fs';
import { type SampleResult, writeImage } from '../../../src/sandbox/image-writer.js';
import { type TreeOptions, treeTars } from '../../../src/sandbox/sample-tree.js';
import { directoryTar } from './directory-source.js';
import { type FormatOptions, formatWriter, type SampleFormat } from './sample-format.js';

export type { SampleResult };

/** Where layers come from: a generated tree (a layer a share), a directory or a tar file (one layer each). */
export type SampleSource =
  | ({ readonly kind: 'tree' } & TreeOptions)
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'tar'; readonly path: string };

export interface SampleOptions extends FormatOptions {
  /** The OCI image layout to create or to add to. */
  readonly layoutDir: string;
  /** The image's name in the layout; an image of this name is replaced. */
  readonly ref: string;
  /** Lowest layer first. */
  readonly sources: readonly SampleSource[];
  /** The format of the layers; zstd:chunked by default. */
  readonly format?: SampleFormat;
  /** Called with the tar bytes written so far, all layers together. */
  readonly onProgress?: (doneBytes: number) => void;
}

/** Bytes of a tar file that one read takes. */
const READ_BYTES = 2 ** 20;

/**
 * Writes an image of any format from any source into a layout, as `writeImage` does.
 * @throws PullError `metadata-malformed` or `unsupported` for a tar that cannot be a layer; errors of the file system
 */
export function writeSampleImage(options: SampleOptions): Promise<SampleResult> {
  const { layoutDir, ref, sources, format = 'zstd:chunked', onProgress } = options;
  return writeImage({ layoutDir, ref, tars: tarsOf(sources), onProgress, ...formatWriter(format, options) });
}

function* tarsOf(sources: readonly SampleSource[]): Generator<Iterable<Buffer>> {
  for (const source of sources) {
    if (source.kind === 'tar') yield fileTar(source.path);
    else if (source.kind === 'directory') yield directoryTar(source.path);
    else yield* treeTars(source);
  }
}

/** A tar file, piece by piece; read synchronously, as `directoryTar` does. */
function* fileTar(path: string): Generator<Buffer> {
  const file = openSync(path, 'r');
  try {
    for (;;) {
      const piece = Buffer.allocUnsafe(READ_BYTES);
      const readBytes = readSync(file, piece);
      if (readBytes === 0) return;
      yield piece.subarray(0, readBytes);
    }
  } finally {
    closeSync(file);
  }
}
