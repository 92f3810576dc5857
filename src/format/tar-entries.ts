import { PullError } from './error.js';
import { applyPax, isZeroBlock, parseHeader, parsePax, type TarEntry, textOf } from './tar-header.js';
import { tarPaddingBytes } from './tar-writer.js';

const BLOCK = 512;

/** The largest extended header or long name; the reference reader stops there too. */
const MAX_META_BYTES = 2 ** 20;

/** Types that have no content, whatever their size field says. */
const HEADER_ONLY = '123456';

/** A tar that can be read anywhere. What `read` returns is good until the next call. */
export interface TarSource {
  readonly lengthBytes: number;
  /** The bytes [position, position + lengthBytes), which lie inside the tar. */
  read(position: number, lengthBytes: number): Buffer;
}

/** An entry and where its content lies in the tar. */
export interface PlacedEntry {
  readonly entry: TarEntry;
  readonly contentStart: number;
  readonly contentBytes: number;
}

/** What extended headers say of the entry that follows them. */
interface Extended {
  pax?: Map<string, string>;
  longName?: Buffer;
  longLink?: Buffer;
}

/**
 * The entries of a tar, in order, without reading their contents (POSIX pax and ustar, GNU and V7 headers). Global pax
 * headers, which state nothing that a file system has, are passed over.
 * @throws PullError `metadata-malformed` for what is no tar, `unsupported` for GNU's sparse formats
 */
export function* tarEntries(source: TarSource): Generator<PlacedEntry, void, undefined> {
  let extended: Extended = {};
  for (let at = 0; at < source.lengthBytes; ) {
    const block = bytesAt(source, at, BLOCK);
    at += BLOCK;
    if (isZeroBlock(block)) {
      if (at < source.lengthBytes && !isZeroBlock(bytesAt(source, at, BLOCK))) {
        throw malformed('a block of zeros stands between its entries');
      }
      return;
    }
    const entry = parseHeader(Buffer.from(block));
    if ('xgLK'.includes(entry.type)) {
      if (entry.sizeBytes > MAX_META_BYTES) throw malformed('an extended header is larger than 1 MiB');
      extend(extended, entry.type, Buffer.from(bytesAt(source, at, entry.sizeBytes)));
      at += entry.sizeBytes + tarPaddingBytes(entry.sizeBytes);
      continue;
    }
    complete(entry, extended);
    extended = {};
    const contentBytes = HEADER_ONLY.includes(entry.type) ? 0 : entry.sizeBytes;
    if (contentBytes > source.lengthBytes - at) throw malformed('it ends inside an entry');
    yield { entry, contentStart: at, contentBytes };
    at += contentBytes + tarPaddingBytes(contentBytes);
  }
}

function extend(extended: Extended, type: string, body: Buffer): void {
  if (type === 'x') extended.pax = parsePax(body);
  else if (type === 'L') extended.longName = textOf(body);
  else if (type === 'K') extended.longLink = textOf(body);
}

function complete(entry: TarEntry, { pax, longName, longLink }: Extended): void {
  if (pax !== undefined) applyPax(entry, pax);
  if (longName !== undefined) entry.name = longName;
  if (longLink !== undefined) entry.linkName = longLink;
  if (entry.type === 'S') throw new PullError('unsupported', 'the tar holds a sparse file');
  // Archives from before POSIX have no type for files, and mark directories by a slash.
  if (entry.type === '\0') entry.type = entry.name.at(-1) === 0x2f ? '5' : '0';
}

function bytesAt(source: TarSource, position: number, lengthBytes: number): Buffer {
  if (position + lengthBytes > source.lengthBytes) throw malformed('it ends inside an entry');
  return source.read(position, lengthBytes);
}

function malformed(why: string): PullError {
  return new PullError('metadata-malformed', `the tar cannot be read: ${why}`);
}
