import { createHash, randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ANNOTATED_DIALECT, OLD_DIALECT } from '../../../src/sandbox/chunked-metadata.js';
import { writeChunkedLayer } from '../../../src/sandbox/chunked-writer.js';
import { type FormatWriter, type SampleResult, writeImage } from '../../../src/sandbox/image-writer.js';
import { type TreeOptions, treeTars } from '../../../src/sandbox/sample-tree.js';
import { directoryTar } from './directory-source.js';
import type { StargzCuts } from './stargz-content.js';
import { ESTARGZ, STARGZ_ZSTD } from './stargz-tail.js';
import { stargzWriter } from './stargz-writer.js';
import { writeGzipLayer, writeTarLayer, zstdWriter } from './whole-writer.js';

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

/** The formats of a sample's layers. */
export const SAMPLE_FORMATS = [
  'zstd:chunked',
  'zstd:chunked-annotated',
  'zstd:chunked-old',
  'stargz-zstd',
  'estargz',
  'gzip',
  'zstd',
  'tar',
] as const;

export type SampleFormat = (typeof SAMPLE_FORMATS)[number];

/** Parameters of some formats. */
export interface FormatOptions extends Partial<StargzCuts> {
  /** zstd: decoded bytes of a frame, at least 1; everything is one frame without it. */
  readonly frameBytes?: number;
}

const TAR_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const GZIP_TYPE = `${TAR_TYPE}+gzip`;
const ZSTD_TYPE = `${TAR_TYPE}+zstd`;

/** Returns the writer of this format. */
export function formatWriter(format: SampleFormat, options: FormatOptions): FormatWriter {
  switch (format) {
    case 'zstd:chunked':
      return { mediaType: ZSTD_TYPE, write: writeChunkedLayer };
    case 'zstd:chunked-annotated':
      return { mediaType: ZSTD_TYPE, write: (...layer) => writeChunkedLayer(...layer, ANNOTATED_DIALECT) };
    case 'zstd:chunked-old':
      return { mediaType: ZSTD_TYPE, write: (...layer) => writeChunkedLayer(...layer, OLD_DIALECT) };
    case 'stargz-zstd':
      return { mediaType: ZSTD_TYPE, write: stargzWriter(STARGZ_ZSTD, options) };
    case 'estargz':
      return { mediaType: GZIP_TYPE, write: stargzWriter(ESTARGZ, options) };
    case 'gzip':
      return { mediaType: GZIP_TYPE, write: writeGzipLayer };
    case 'zstd':
      return { mediaType: ZSTD_TYPE, write: zstdWriter(options.frameBytes) };
    case 'tar':
      return { mediaType: TAR_TYPE, write: writeTarLayer };
  }
}

/** To be raised when the sandbox writes other bytes for the same options. */
const FORMAT = 1;

/**
 * A generated image in a layout of its own, under the name `sample`. It is written once a machine and stays in the
 * directory for temporary files; tests must not change it.
 */
export async function keptSample(tree: TreeOptions): Promise<{ layout: string; sample: SampleResult }> {
  const key = createHash('sha256')
    .update(JSON.stringify({ FORMAT, ...tree }))
    .digest('hex')
    .slice(0, 16);
  const layout = join(tmpdir(), `zpull-test-sample-${key}`);
  const facts = join(layout, 'sample.json');
  if (!existsSync(facts)) {
    const unfinished = `${layout}.${randomUUID()}`;
    const sources = [{ kind: 'tree' as const, ...tree }];
    const sample = await writeSampleImage({ layoutDir: unfinished, ref: 'sample', sources });
    writeFileSync(join(unfinished, 'sample.json'), JSON.stringify(sample));
    try {
      renameSync(unfinished, layout);
    } catch {
      rmSync(unfinished, { recursive: true }); // another test run was first
    }
  }
  return { layout, sample: JSON.parse(readFileSync(facts, 'utf8')) as SampleResult };
}
