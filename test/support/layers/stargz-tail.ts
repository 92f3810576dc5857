import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { type Digest, digestOfBytes } from '../../../src/format/digest.js';
import type { TarEntry, TarTime } from '../../../src/format/tar-header.js';
import { TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import {
  compressText,
  goJson,
  goText,
  OLD_MAGIC,
  OLD_PREFIX,
  timeText,
  tocType,
  writeTail,
  xattrsOf,
} from '../../../src/sandbox/chunked-metadata.js';
import type { TarMeter } from '../../../src/sandbox/layer-writer.js';

/** One chunk of a content; `blobStart` is known once its member is written. */
export interface StargzChunk {
  /** Its offset in the content. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly digest: string;
  readonly member: { readonly blobStart: number };
  /** Its offset in the decoded member. */
  readonly innerOffset: number;
}

/** Entries stand two levels deep in the reference writer's indented JSON. */
const INDENT = '\n\t\t';

/**
 * The JSON text of one tar entry in stargz-snapshotter's TOC (estargz/types.go): its own record and one for each
 * further chunk, between commas. `chunkBytes` is the size at which contents are cut.
 */
export function stargzTocText(
  entry: TarEntry,
  digest: string | undefined,
  chunks: readonly StargzChunk[],
  chunkBytes: number,
): string {
  const type = tocType(entry);
  const name = goText(entry.name);
  const isDevice = type === 'char' || type === 'block';
  const isLink = type === 'hardlink' || type === 'symlink';
  const records = chunks.map((chunk) => chunkFields(chunk, chunkBytes));
  const [first, ...rest] = records;
  const own = {
    name,
    type,
    size: (type === 'reg' && entry.sizeBytes) || undefined,
    modtime: timeOf(entry.mtime),
    linkName: (isLink && goText(entry.linkName)) || undefined,
    mode: entry.mode || undefined,
    uid: entry.uid || undefined,
    gid: entry.gid || undefined,
    offset: first?.offset,
    innerOffset: first?.innerOffset,
    devMajor: (isDevice && entry.devMajor) || undefined,
    devMinor: (isDevice && entry.devMinor) || undefined,
    xattrs: xattrsOf(entry),
    digest,
    ...first?.chunk,
  };
  const all = rest.map(({ offset, innerOffset, chunk }) => ({
    name,
    type: 'chunk',
    offset,
    innerOffset,
    ...chunk,
  }));
  return [own, ...all].map((record) => INDENT + goJson(record, '\t').replaceAll('\n', INDENT)).join(',');
}

/** A chunk that is shorter than the others has no size: it ends with the file. */
function chunkFields({ offset, sizeBytes, digest, member, innerOffset }: StargzChunk, chunkBytes: number) {
  return {
    offset: member.blobStart,
    innerOffset: innerOffset || undefined,
    chunk: {
      chunkOffset: offset || undefined,
      chunkSize: sizeBytes === chunkBytes ? sizeBytes : undefined,
      chunkDigest: digest,
    },
  };
}

/** To the nearest second; the beginning of 1970 counts as no time. */
function timeOf({ seconds, nanos }: TarTime): string | undefined {
  if (seconds === 0) return undefined;
  return timeText({ seconds: nanos >= 5e8 ? seconds + 1 : seconds, nanos: 0 });
}

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
