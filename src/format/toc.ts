import { type Digest, parseDigest } from './digest.js';
import { PullError } from './error.js';
import { JsonCursor, jsonText, wordSet } from './json-cursor.js';

/**
 * Entries of one TOC, chunks included. A layer of a million files is rare; the rows of four million
 * are 256 MB.
 */
const MAX_TOC_ENTRIES = 4 * 2 ** 20;
/** Most characters of a path in an error message. */
const MAX_SHOWN_PATH = 200;

const TOP_KEYS = wordSet('version entries tarSplitDigest');
const ENTRY_KEYS = wordSet(
  'type name size digest offset endOffset chunkSize chunkOffset chunkDigest innerOffset',
);
const TYPES = wordSet('reg chunk');

/** One entry as numbers. Every call of `visit` gets the same object: copy what is needed later. */
export class TocEntry {
  /** Index in `entries`. */
  number = -1;
  type: 'reg' | 'chunk' | 'other' = 'other';
  /** Range of the name in the bytes of the TOC. */
  nameStart = 0;
  nameEnd = 0;
  nameEscaped = false;
  /** Zero where the TOC leaves a number out, as it does with zeros. */
  sizeBytes = 0;
  offset = 0;
  endOffset = 0;
  chunkSize = 0;
  chunkOffset = 0;
  /** Offset of the bytes in the frame at `offset`, if several files share it (stargz writers). */
  innerOffset = 0;
  /** Range of the entry's text: an object behind a comma or white space. */
  textStart = 0;
  textBytes = 0;
  /** Range of the text of a digest, -1 if there is none. */
  digestStart = -1;
  digestEnd = -1;
  chunkDigestStart = -1;
  chunkDigestEnd = -1;
}

/**
 * Calls `visit` for each entry of a TOC in order. Returns the digest of the compressed tar-split,
 * if the TOC states it.
 * @param visit returns false to skip the remaining entries, which are checked all the same
 * @throws PullError `metadata-malformed` with the byte offset or the number of the entry; whatever
 *   `visit` throws
 */
export function scanToc(toc: Buffer, visit: (entry: TocEntry) => boolean): Digest | undefined {
  const cursor = new JsonCursor(toc, 'The TOC');
  let tarSplitDigest: Digest | undefined;
  let hasEntries = false;
  for (let more = cursor.firstMember(); more; more = cursor.nextMember()) {
    switch (cursor.match(TOP_KEYS)) {
      case 0: {
        const version = cursor.readInteger();
        if (version !== 1) {
          throw new PullError('metadata-malformed', `The TOC has version ${version}; only 1 is known`);
        }
        break;
      }
      case 1:
        if (hasEntries) throw new PullError('metadata-malformed', 'The TOC has two lists of entries');
        hasEntries = true;
        if (!cursor.skipNull()) scanEntries(cursor, visit);
        break;
      case 2:
        if (!cursor.skipNull()) {
          cursor.readString();
          tarSplitDigest = parseDigest(cursor.text(), "The TOC's tarSplitDigest");
        }
        break;
      default:
        cursor.skipValue();
    }
  }
  cursor.end();
  if (!hasEntries) throw new PullError('metadata-malformed', 'The TOC has no entries');
  return tarSplitDigest;
}

/** What builds a layer table from the entries of a TOC. */
export interface ContentVisitor {
  /** Whether a chunk may leave out its size: it is the rest of the content. */
  readonly impliesChunkSize: boolean;
  /** Called for each entry that is no chunk. */
  readonly addEntry: (entry: TocEntry) => void;
  /** Called for a file with content after that, then for its chunks behind the first, then at its end. */
  readonly addContent: (entry: TocEntry) => void;
  readonly addChunk: (entry: TocEntry) => void;
  readonly endContent?: () => void;
}

/**
 * Visits the entries of a TOC in order, and checks that chunks follow their content and cover it.
 * @throws as `scanToc`; PullError `metadata-malformed` naming the entry and field
 */
export function scanContents(toc: Buffer, visitor: ContentVisitor): void {
  /** Size of the content that chunks may still belong to, 0 without one; what they cover so far. */
  let [sizeBytes, coveredBytes] = [0, 0];
  let last = 0;
  const endContent = () => {
    if (sizeBytes === 0) return;
    if (coveredBytes !== sizeBytes)
      throw tocError(last, `the file has ${sizeBytes} bytes, but its chunks end at ${coveredBytes}`);
    sizeBytes = 0;
    visitor.endContent?.();
  };
  scanToc(toc, (entry) => {
    if (entry.type === 'chunk') {
      const { number, chunkOffset } = entry;
      if (sizeBytes === 0) throw tocError(number, 'a chunk that follows no file with content');
      if (chunkOffset !== coveredBytes)
        throw tocError(number, `chunkOffset is ${chunkOffset}, but the chunks before end at ${coveredBytes}`);
      if (entry.chunkSize === 0 && !visitor.impliesChunkSize) throw tocError(number, 'chunkSize is missing');
      const chunkSize = entry.chunkSize || sizeBytes - chunkOffset;
      if (chunkSize <= 0 || chunkSize > sizeBytes - chunkOffset)
        throw tocError(number, `chunkSize ${chunkSize} reaches beyond the file's ${sizeBytes} bytes`);
      visitor.addChunk(entry);
      coveredBytes += chunkSize;
    } else {
      endContent();
      visitor.addEntry(entry);
      if (entry.type === 'reg' && entry.sizeBytes > 0) {
        checkContent(entry);
        visitor.addContent(entry);
        sizeBytes = entry.sizeBytes;
        coveredBytes = entry.chunkSize || sizeBytes;
      }
    }
    last = entry.number;
    return true;
  });
  endContent();
}

function checkContent({ number, digestStart, chunkOffset }: TocEntry): void {
  if (digestStart < 0) throw tocError(number, 'digest is missing');
  if (chunkOffset !== 0) throw tocError(number, `chunkOffset is ${chunkOffset} in a reg entry`);
}

function scanEntries(cursor: JsonCursor, visit: (entry: TocEntry) => boolean): void {
  const entry = new TocEntry();
  let visiting = true;
  for (let more = cursor.firstElement(); more; more = cursor.nextElement()) {
    if (entry.number + 1 >= MAX_TOC_ENTRIES) {
      throw new PullError('metadata-malformed', `The TOC has more than ${MAX_TOC_ENTRIES} entries`);
    }
    readEntry(cursor, entry);
    if (visiting) visiting = visit(entry);
  }
}

function readEntry(cursor: JsonCursor, entry: TocEntry): void {
  entry.number++;
  entry.type = 'other';
  entry.nameStart = entry.nameEnd = 0;
  entry.nameEscaped = false;
  entry.sizeBytes = entry.offset = entry.endOffset = 0;
  entry.chunkSize = entry.chunkOffset = entry.innerOffset = 0;
  entry.digestStart = entry.digestEnd = entry.chunkDigestStart = entry.chunkDigestEnd = -1;
  entry.textStart = cursor.offset;
  for (let more = cursor.firstMember(); more; more = cursor.nextMember()) {
    const key = cursor.match(ENTRY_KEYS);
    if (key < 0) cursor.skipValue();
    else if (!cursor.skipNull()) readField(cursor, key, entry);
  }
  entry.textBytes = cursor.offset - entry.textStart;
}

function readField(cursor: JsonCursor, key: number, entry: TocEntry): void {
  switch (key) {
    case 0:
      cursor.readString();
      entry.type = (['reg', 'chunk'] as const)[cursor.match(TYPES)] ?? 'other';
      return;
    case 1:
      cursor.readString();
      entry.nameStart = cursor.stringStart;
      entry.nameEnd = cursor.stringEnd;
      entry.nameEscaped = cursor.escaped;
      return;
    case 3:
      cursor.readString();
      entry.digestStart = cursor.stringStart;
      entry.digestEnd = cursor.stringEnd;
      return;
    case 8:
      cursor.readString();
      entry.chunkDigestStart = cursor.stringStart;
      entry.chunkDigestEnd = cursor.stringEnd;
      return;
    default:
      readNumber(cursor, key, entry);
  }
}

function readNumber(cursor: JsonCursor, key: number, entry: TocEntry): void {
  const value = cursor.readInteger();
  if (value < 0) throw tocError(entry.number, `${ENTRY_KEYS.words[key]} is negative`);
  if (key === 2) entry.sizeBytes = value;
  else if (key === 4) entry.offset = value;
  else if (key === 5) entry.endOffset = value;
  else if (key === 6) entry.chunkSize = value;
  else if (key === 7) entry.chunkOffset = value;
  else entry.innerOffset = value;
}

/** Returns a `metadata-malformed` error about entry `number`. */
export function tocError(number: number, problem: string): PullError {
  return new PullError('metadata-malformed', `TOC entry ${number}: ${problem}`);
}

/**
 * Returns the digest of the compressed tar-split that a decoded TOC states, undefined if it states
 * none (writers before 1.54).
 * @throws PullError `metadata-malformed` if the TOC is
 */
export function tocTarSplitDigest(toc: Buffer): Digest | undefined {
  return scanToc(toc, () => false);
}

/**
 * Returns the name of content `contentIndex` (the n-th `reg` entry that is not empty) for an error
 * message, with control characters escaped and cut if long.
 * @throws PullError `metadata-malformed` if the TOC is, `internal` if it has no such content
 */
export function contentPath(toc: Buffer, contentIndex: number): string {
  let path: string | undefined;
  let index = 0;
  scanToc(toc, (entry) => {
    if (entry.type !== 'reg' || entry.sizeBytes === 0) return true;
    if (index++ < contentIndex) return true;
    path = jsonText(toc, entry.nameStart, entry.nameEnd, entry.nameEscaped);
    return false;
  });
  if (path === undefined) throw new PullError('internal', `The TOC has no content ${contentIndex}`);
  return printable(path);
}

/**
 * Returns `text` without characters that could control a terminal, and no longer than a line or
 * two.
 */
export function printable(text: string): string {
  const cut = text.length > MAX_SHOWN_PATH ? `${text.slice(0, MAX_SHOWN_PATH)}…` : text;
  return cut.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu,
    (char) => `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  );
}
