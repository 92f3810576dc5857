import { ANNOTATED_DIALECT, OLD_DIALECT } from '../../../src/sandbox/chunked-metadata.js';
import { writeChunkedLayer } from '../../../src/sandbox/chunked-writer.js';
import type { FormatWriter } from '../../../src/sandbox/image-writer.js';
import type { StargzCuts } from './stargz-content.js';
import { ESTARGZ, STARGZ_ZSTD } from './stargz-tail.js';
import { stargzWriter } from './stargz-writer.js';
import { writeGzipLayer, writeTarLayer, zstdWriter } from './whole-writer.js';

/** What a sample's layers can be written as. */
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

/** What some formats leave open. */
export interface FormatOptions extends Partial<StargzCuts> {
  /** zstd: decoded bytes of a frame, at least 1; everything is one frame without it. */
  readonly frameBytes?: number;
}

const TAR_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const GZIP_TYPE = `${TAR_TYPE}+gzip`;
const ZSTD_TYPE = `${TAR_TYPE}+zstd`;

/** What writes layers of this format. */
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
