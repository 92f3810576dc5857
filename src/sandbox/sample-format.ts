import { writeChunkedLayer } from './chunked-writer.js';
import type { LayerWriter } from './layer-writer.js';
import { writeGzipLayer, writeTarLayer, zstdWriter } from './whole-writer.js';

/** What a sample's layers can be written as. */
export const SAMPLE_FORMATS = ['zstd:chunked', 'gzip', 'zstd', 'tar'] as const;

export type SampleFormat = (typeof SAMPLE_FORMATS)[number];

/** What some formats leave open. */
export interface FormatOptions {
  /** zstd: decoded bytes of a frame, at least 1; everything is one frame without it. */
  readonly frameBytes?: number;
}

/** A layer's media type (OCI image-spec, layer.md) and what writes it. */
interface FormatWriter {
  readonly mediaType: string;
  readonly write: LayerWriter;
}

const TAR_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const GZIP_TYPE = `${TAR_TYPE}+gzip`;
const ZSTD_TYPE = `${TAR_TYPE}+zstd`;

/** What writes layers of this format. */
export function formatWriter(format: SampleFormat, options: FormatOptions): FormatWriter {
  switch (format) {
    case 'zstd:chunked':
      return { mediaType: ZSTD_TYPE, write: writeChunkedLayer };
    case 'gzip':
      return { mediaType: GZIP_TYPE, write: writeGzipLayer };
    case 'zstd':
      return { mediaType: ZSTD_TYPE, write: zstdWriter(options.frameBytes) };
    case 'tar':
      return { mediaType: TAR_TYPE, write: writeTarLayer };
  }
}
