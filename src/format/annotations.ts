import { type Digest, parseDigest } from './digest.js';
import { PullError } from './error.js';
import { SKIPPABLE_HEADER_BYTES } from './zstd-frame.js';

/** Where one piece of chunked metadata lies in its blob, and what it decodes to. */
interface MetadataPosition {
  /** Blob range [start, end) of the zstd frame: the skippable frame's header lies 8 bytes before. */
  readonly start: number;
  readonly end: number;
  readonly uncompressedBytes: number;
}

/** What a descriptor's annotations say about a zstd:chunked blob. */
export interface ChunkedPositions {
  /** The prefix of the annotations; it dates the writer. */
  readonly dialect: string;
  /** `digest` is that of the compressed TOC. */
  readonly toc: MetadataPosition & { readonly digest: Digest };
  /** Absent in older writers' blobs; the digest is there unless the TOC has it (`tarSplitDigest`). */
  readonly tarSplit?: MetadataPosition & { readonly digest?: Digest };
}

/** What containers/storage writes since 1.44, and what it and nerdctl wrote before. */
const PREFIXES = ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.'] as const;

const NUMBERS = /^\d{1,16}(:\d{1,16})+$/;
/** The only type of TOC there is. */
const TOC_TYPE = 1;

/**
 * The positions that a layer descriptor's annotations give, undefined if it has none of them.
 * @param blobBytes size of the blob; every range must lie within it. How long they are is for `metadataMemoryBytes` to applyPolicy
 * @throws PullError `metadata-malformed` naming the annotation (docs/containers-storage-zstd-chunked.md of
 * containers/storage describes them), `unsupported` for a digest that is no sha256
 */
export function parseChunkedAnnotations(
  annotations: Readonly<Record<string, string>> | undefined,
  blobBytes: number,
): ChunkedPositions | undefined {
  if (annotations === undefined) return undefined;
  const value = (name: string) => (Object.hasOwn(annotations, name) ? annotations[name] : undefined);
  const dialect = PREFIXES.find((prefix) => Object.keys(annotations).some((name) => name.startsWith(prefix)));
  if (dialect === undefined) return undefined;

  const positionName = `${dialect}manifest-position`;
  const checksumName = `${dialect}manifest-checksum`;
  const position = value(positionName);
  const checksum = value(checksumName);
  if (position === undefined) throw malformed(positionName, 'is missing');
  if (checksum === undefined) throw malformed(checksumName, 'is missing');
  const numbers = parseNumbers(positionName, position, 4);
  if (numbers[3] !== TOC_TYPE) throw malformed(positionName, `has TOC type ${numbers[3]}; only 1 is known`);
  const toc = {
    ...checkPosition(positionName, numbers, blobBytes),
    digest: parseDigest(checksum, `The annotation ${checksumName}`),
  };

  const splitName = `${dialect}tarsplit-position`;
  const split = value(splitName);
  if (split === undefined) return { dialect, toc };
  const splitChecksumName = `${dialect}tarsplit-checksum`;
  const splitChecksum = value(splitChecksumName);
  const tarSplit = {
    ...checkPosition(splitName, parseNumbers(splitName, split, 3), blobBytes),
    ...(splitChecksum === undefined
      ? {}
      : { digest: parseDigest(splitChecksum, `The annotation ${splitChecksumName}`) }),
  };
  return { dialect, toc, tarSplit };
}

/** The numbers of an annotation like `12:34:56`, exactly `count` of them. */
function parseNumbers(name: string, text: string, count: number): number[] {
  if (!NUMBERS.test(text)) throw malformed(name, 'is not a list of numbers with colons between');
  const numbers = text.split(':').map(Number);
  if (numbers.length !== count) throw malformed(name, `has ${numbers.length} numbers instead of ${count}`);
  if (!numbers.every(Number.isSafeInteger)) throw malformed(name, 'has a number that is too large');
  return numbers;
}

function checkPosition(name: string, numbers: readonly number[], blobBytes: number): MetadataPosition {
  const [start = 0, bytes = 0, uncompressedBytes = 0] = numbers;
  if (start < SKIPPABLE_HEADER_BYTES) throw malformed(name, `starts at ${start}, inside a frame header`);
  if (bytes === 0 || uncompressedBytes === 0) throw malformed(name, 'describes an empty range');
  if (start + bytes > blobBytes) {
    throw malformed(name, `ends at ${start + bytes}, beyond the blob's ${blobBytes} bytes`);
  }
  return { start, end: start + bytes, uncompressedBytes };
}

function malformed(name: string, problem: string): PullError {
  return new PullError('metadata-malformed', `The annotation ${name} ${problem}`);
}
