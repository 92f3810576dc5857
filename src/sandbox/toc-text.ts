import { PullError } from '../format/error.js';
import type { TarEntry, TarTime } from '../format/tar-header.js';
import { goJson, goText } from './go-json.js';

/** One chunk of a content as the TOC states it; `blobStart` is known once its frame is written. */
export interface TocChunk {
  readonly offset: number;
  sizeBytes: number;
  digest: string;
  zeros: boolean;
  blobStart: number;
}

/** A content as the TOC states it. */
export interface TocContent {
  readonly digest: string;
  readonly blobEnd: number;
  readonly chunks: readonly TocChunk[];
}

const TYPES: Readonly<Record<string, string>> = {
  '0': 'reg',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'dir',
  '6': 'fifo',
};

/**
 * The type of a TOC entry (containers/storage, pkg/chunked/internal/minimal).
 * @throws PullError `unsupported` for an entry a TOC has no word for, such as a global pax header
 */
export function tocType(entry: TarEntry): string {
  const type = TYPES[entry.type];
  if (type !== undefined) return type;
  throw new PullError(
    'unsupported',
    `a tar entry of type ${JSON.stringify(entry.type)} cannot stand in a TOC`,
    {
      hint: 'repack the layer with plain files, directories, links and devices',
    },
  );
}

/** Go's zero time, which writers before 1.44 stated where the tar has none. */
const ZERO_TIME = '0001-01-01T00:00:00Z';

/** The JSON text of one tar entry: its own record and one for each further chunk, between commas. */
export function tocText(entry: TarEntry, content: TocContent | undefined, zeroTimes: boolean): string {
  const noTime = zeroTimes ? ZERO_TIME : undefined;
  const [first, ...rest] = content?.chunks ?? [];
  const isSplit = rest.length > 0;
  const name = goText(entry.name);
  const own = {
    type: tocType(entry),
    name,
    linkName: goText(entry.linkName) || undefined,
    mode: entry.mode || undefined,
    size: entry.sizeBytes || undefined,
    uid: entry.uid || undefined,
    gid: entry.gid || undefined,
    modtime: timeText(entry.mtime),
    accesstime: entry.atime ? timeText(entry.atime) : noTime,
    changetime: entry.ctime ? timeText(entry.ctime) : noTime,
    devMajor: entry.devMajor || undefined,
    devMinor: entry.devMinor || undefined,
    xattrs: xattrsOf(entry),
    digest: content?.digest,
    offset: first?.blobStart,
    endOffset: content?.blobEnd,
    ...(isSplit && first !== undefined ? chunkFields(first) : {}),
  };
  let text = goJson(own);
  for (const chunk of rest) {
    text += `,${goJson({ type: 'chunk', name, offset: chunk.blobStart, ...chunkFields(chunk) })}`;
  }
  return text;
}

function chunkFields(chunk: TocChunk): object {
  return {
    chunkSize: chunk.sizeBytes,
    chunkOffset: chunk.offset || undefined,
    chunkDigest: chunk.digest,
    chunkType: chunk.zeros ? 'zeros' : undefined,
  };
}

/** Extended attributes in base64: Go sorts the keys of a map by their bytes. */
export function xattrsOf(entry: TarEntry): object | undefined {
  if (entry.xattrs.size === 0) return undefined;
  const pairs = [...entry.xattrs].map(([key, value]) => [goText(Buffer.from(key, 'latin1')), value] as const);
  pairs.sort(([left], [right]) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
  return Object.fromEntries(pairs.map(([key, value]) => [key, value.toString('base64')]));
}

/**
 * RFC 3339 in UTC, with as many digits of the second as it takes.
 * @throws PullError `unsupported` for a year that it cannot state
 */
export function timeText(time: TarTime): string {
  const date = new Date(time.seconds * 1000);
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() < 0 || date.getUTCFullYear() > 9999) {
    throw new PullError('unsupported', 'the tar holds a time outside the years 0 to 9999', {
      hint: 'repack the layer with other times',
    });
  }
  const whole = date.toISOString().slice(0, 19);
  if (time.nanos === 0) return `${whole}Z`;
  return `${whole}.${String(time.nanos).padStart(9, '0').replace(/0+$/, '')}Z`;
}
