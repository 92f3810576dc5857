import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { type Digest, digestOfBytes } from '../../../src/format/digest.js';
import { TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { compressText, OLD_MAGIC, OLD_PREFIX, writeTail } from '../../../src/sandbox/chunked-metadata.js';
import type { TarMeter } from '../../../src/sandbox/layer-writer.js';

/** What distinguishes eStargz from stargz-snapshotter's zstd:chunked. */
export interface StargzCompression {
  /** One member of these bytes. */
  readonly compress: (raw: Buffer) => Promise<Buffer>;
  /**
   * Writes the TOC and the footer behind the members, which end at `dataEnd`; what of it belongs to the tar goes to
   * the meter. The annotations that point at it, without those that both forms have.
   */
  readonly end: (
    toc: Buffer,
    dataEnd: number,
    write: (bytes: Buffer) => void,
    meter: TarMeter,
  ) => Promise<Record<string, string>>;
}

const TOC_NAME = 'stargz.index.json';

const gzipMember = promisify<Buffer, Buffer>(gzip);

/** The TOC is the last entry of the tar, in a member of its own (stargz-snapshotter, docs/estargz.md). */
export const ESTARGZ: StargzCompression = {
  compress: gzipMember,
  end: async (toc, dataEnd, write, meter) => {
    const ids = { mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
    const header = tarHeader({ type: '0', name: TOC_NAME, sizeBytes: toc.length, ...ids });
    const raw = Buffer.concat([header, toc, tarPadding(toc.length), TAR_END]);
    meter.add(raw);
    write(await gzipMember(raw));
    write(gzipFooter(dataEnd));
    return {};
  },
};

/** The TOC is no part of the tar. */
export const STARGZ_ZSTD: StargzCompression = {
  compress: (raw) => compress(raw),
  end: async (text, dataEnd, write) => {
    const toc = await compressText(text);
    const [position] = writeTail(write, dataEnd, OLD_MAGIC, toc);
    return { [`${OLD_PREFIX}manifest-checksum`]: toc.digest, [`${OLD_PREFIX}manifest-position`]: position };
  },
};

/** The annotations of both forms. */
export function stargzAnnotations(toc: Buffer, tarBytes: number): Record<string, string> {
  return {
    'containerd.io/snapshot/stargz/toc.digest': sha256(toc),
    'io.containers.estargz.uncompressed-size': String(tarBytes),
  };
}

function sha256(bytes: Buffer): Digest {
  return digestOfBytes(createHash('sha256').update(bytes).digest());
}

/** 51 bytes: a member of nothing, whose extra field `SG` (RFC 1952, section 2.3.1.1) says where the TOC's begins. */
function gzipFooter(tocOffset: number): Buffer {
  const field = Buffer.from(`${tocOffset.toString(16).padStart(16, '0')}STARGZ`, 'latin1');
  const head = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, field.length + 4, 0]);
  const subfield = Buffer.from([0x53, 0x47, field.length, 0]);
  const emptyBlock = Buffer.from([1, 0, 0, 0xff, 0xff]);
  return Buffer.concat([head, subfield, field, emptyBlock, Buffer.alloc(8)]);
}
