import type { TarEntry, TarTime } from '../../../src/format/tar-header.js';
import { goJson, goText, timeText, tocType, xattrsOf } from '../../../src/sandbox/chunked-metadata.js';

/** One chunk of a content; `blobStart` is known once its member is written. */
export interface StargzChunk {
  /** Where it begins in the content. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly digest: string;
  readonly member: { readonly blobStart: number };
  /** Where it begins in what the member decodes to. */
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
