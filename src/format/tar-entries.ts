import type { Digest } from './digest.js';
import { PullError } from './error.js';
import {
  isHeaderOnly,
  isZeroBlock,
  MAX_TAR_META_BYTES,
  paddingOf,
  TAR_BLOCK_BYTES,
  unreadableTar,
} from './tar-fields.js';
import { ExtendedHeaders, parseHeader, type TarEntry } from './tar-header.js';

/** A tar that can be read anywhere. What `read` returns is good until the next call. */
export interface TarSource {
  readonly lengthBytes: number;
  /** The DiffID of the layer that it is, where that is known: errors name it. */
  readonly diffId?: Digest;
  /** The bytes [position, position + lengthBytes), which lie inside the tar. */
  read(position: number, lengthBytes: number): Buffer;
}

/** An entry and where its content lies in the tar. */
export interface PlacedEntry {
  readonly entry: TarEntry;
  readonly contentStart: number;
  readonly contentBytes: number;
}

/**
 * The entries of a tar, in order, without reading their contents (POSIX pax and ustar, GNU and V7 headers). Global pax
 * headers, which state nothing that a file system has, are passed over. `onMeta` is called with the length of every other extended header
 * before it is read.
 * @throws PullError `metadata-malformed` for what is no tar, `unsupported` for GNU's sparse formats
 */
export function* tarEntries(
  source: TarSource,
  onMeta: (lengthBytes: number) => void = () => {},
): Generator<PlacedEntry, void, undefined> {
  const extended = new ExtendedHeaders();
  for (let at = 0; at < source.lengthBytes; ) {
    const block = bytesAt(source, at, TAR_BLOCK_BYTES);
    at += TAR_BLOCK_BYTES;
    if (isZeroBlock(block)) {
      if (at < source.lengthBytes && !isZeroBlock(bytesAt(source, at, TAR_BLOCK_BYTES))) {
        throw unreadableTar('a block of zeros stands between its entries');
      }
      return;
    }
    const entry = parseHeader(Buffer.from(block));
    if ('xgLK'.includes(entry.type)) {
      if (entry.sizeBytes > MAX_TAR_META_BYTES)
        throw unreadableTar('an extended header is larger than 1 MiB');
      requireInside(source, at, entry.sizeBytes);
      if (entry.type !== 'g') {
        onMeta(entry.sizeBytes);
        extended.take(entry.type, Buffer.from(source.read(at, entry.sizeBytes)));
      }
      at += entry.sizeBytes + paddingOf(entry.sizeBytes);
      continue;
    }
    extended.complete(entry);
    if (entry.type === 'S') throw new PullError('unsupported', 'the tar holds a sparse file');
    const contentBytes = isHeaderOnly(entry.type) ? 0 : entry.sizeBytes;
    if (contentBytes > source.lengthBytes - at) throw unreadableTar('it ends inside an entry');
    yield { entry, contentStart: at, contentBytes };
    at += contentBytes + paddingOf(contentBytes);
  }
}

function bytesAt(source: TarSource, position: number, lengthBytes: number): Buffer {
  requireInside(source, position, lengthBytes);
  return source.read(position, lengthBytes);
}

function requireInside(source: TarSource, position: number, lengthBytes: number): void {
  if (position + lengthBytes > source.lengthBytes) throw unreadableTar('it ends inside an entry');
}
