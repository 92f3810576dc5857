import { isUtf8 } from 'node:buffer';
import { PullError } from '../format/error.js';
import type { TarEntry, TarTime } from '../format/tar-header.js';
import { TextSpool } from './layer-writer.js';

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

/** The lines of a tar-split (vbatts/tar-split, tar/storage): raw bytes, and one line an entry. */
export class TarSplitText {
  readonly #spool = new TextSpool();
  #position = 0;

  /** Tar bytes that are no content. */
  raw(bytes: Buffer): void {
    this.#spool.add(`{"type":2,"payload":"${bytes.toString('base64')}","position":${this.#position++}}\n`);
  }

  /** A tar entry; `crc` is the checksum of its content, if it has a size. */
  entry(entry: TarEntry, crc: Buffer | undefined): void {
    const named = isUtf8(entry.name)
      ? { name: entry.name.toString() || undefined }
      : { name_raw: entry.name.toString('base64') };
    const size = entry.sizeBytes || undefined;
    const payload = crc === undefined ? null : crc.toString('base64');
    const line = { type: 1, ...named, size, payload, position: this.#position++ };
    this.#spool.add(`${goJson(line)}\n`);
  }

  toBuffer(): Buffer {
    return this.#spool.toBuffer();
  }
}

/** Stands for a byte that is not UTF-8: no decoded text holds half a surrogate pair, and JSON.stringify escapes it. */
const INVALID = '\udc80';

/** Everything that is escaped in JSON, and what Go's encoder escapes besides. */
const ESCAPED = /\\(?:u[0-9a-f]{4}|.)|[<>&\u2028\u2029]/g;

/** JSON as Go's encoder writes it: `<`, `>`, `&`, line separators and what was not UTF-8 as `\uXXXX`. */
export function goJson(value: unknown, indent = ''): string {
  return JSON.stringify(value, undefined, indent).replace(ESCAPED, (found) => {
    if (found.length === 1) return `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`;
    return found === '\\udc80' ? '\\ufffd' : found;
  });
}

/** Bytes as text for goJson: each byte that is no part of a UTF-8 sequence will be one U+FFFD. */
export function goText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString();
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const end = endOfSequence(bytes, at);
    text += end === at ? INVALID : bytes.toString('utf8', at, end);
    at = end === at ? at + 1 : end;
  }
  return text;
}

/** The end of the UTF-8 sequence that starts here, or its start if none does. */
function endOfSequence(bytes: Buffer, start: number): number {
  for (let end = start + 1; end <= Math.min(start + 4, bytes.length); end += 1) {
    if (isUtf8(bytes.subarray(start, end))) return end;
  }
  return start;
}
