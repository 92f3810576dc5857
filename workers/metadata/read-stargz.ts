import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { type Digest, digestOfBytes } from '../../src/format/digest.js';
import { PullError } from '../../src/format/error.js';
import { footerGuessBytes, parseEstargzFooter } from '../../src/format/metadata-position.js';
import { sizeFieldOf, TAR_BLOCK_BYTES, textOf, verifyHeader } from '../../src/format/tar-fields.js';
import { buildTocOnlyTable } from '../../src/format/toc-only-table-builder.js';
import type { LayerMetadata, ReadMetadataTask } from '../../src/pool/messages.js';
import { MAX_DIGEST_TRIES } from '../../src/registry/retry-rules.js';
import { packWriter, paths } from '../context.js';
import type { BookMetadata, MetadataSource } from './metadata-source.js';
import { writeHeaders } from './write-headers.js';

/** The name of the tar entry with the TOC. */
const TOC_NAME = 'stargz.index.json';

/** The last four bytes of a gzip member are its decoded length (RFC 1952, ISIZE). */
const ISIZE_BYTES = 4;

/** zlib requires room after the last byte to detect the end. */
const ROOM_BEHIND_BYTES = 64;

const gunzipAll = promisify(gunzip);

/**
 * Returns the metadata of an eStargz layer (stargz-snapshotter, docs/estargz.md), found by the
 * footer of the blob; undefined if it has none. The gzip member of the TOC is also the end of the
 * tar, and is written to this thread's pack, unless the store is read-only.
 * @throws PullError `digest-mismatch` if the TOC does not have `tocDigest`; `metadata-malformed`
 */
export async function readStargz(
  source: MetadataSource,
  { blob, withHeaders }: Pick<ReadMetadataTask, 'blob' | 'withHeaders'>,
  tocDigest: Digest | undefined,
  book: BookMetadata,
): Promise<LayerMetadata | undefined> {
  for (let tries = 1; ; tries++) {
    const footer = parseEstargzFooter(await source.tail(footerGuessBytes(blob.sizeBytes)), blob.sizeBytes);
    if (footer === undefined) return undefined;
    const range = { start: footer.tocStart, end: footer.tocEnd };
    const isize = { start: Math.max(range.start, range.end - ISIZE_BYTES), end: range.end };
    const uncompressedBytes = (await source.part(isize, isize)).readUInt32LE();
    await book({ bytes: range.end - range.start, uncompressedBytes });
    const member = await decodeMember(await source.part(range, range), uncompressedBytes);
    const toc = tocOf(member);
    const actual = digestOfBytes(createHash('sha256').update(toc).digest());
    if (tocDigest === undefined || actual === tocDigest) {
      const table = buildTocOnlyTable({ toc, dataEnd: range.start, compression: 'gzip' });
      const metadataBytes = blob.sizeBytes - range.start;
      const lastBytes = shareLastBytes(source.before(range.start), range.start);
      const metadata = {
        format: 'estargz',
        table,
        metadataBytes,
        ...(lastBytes && { lastBytes }),
        ...(withHeaders && { headers: writeHeaders(toc, TOC_NAME) }),
      } as const;
      return paths.isReadOnly ? metadata : { ...metadata, tail: writeTail(member) };
    }
    if (tries === MAX_DIGEST_TRIES) {
      throw new PullError(
        'digest-mismatch',
        `the TOC does not match its annotation: expected ${tocDigest}, got ${actual}, twice`,
      );
    }
    await source.forget();
  }
}

/** Decodes into one block, where zlib would join many. */
async function decodeMember(bytes: Buffer, uncompressedBytes: number): Promise<Buffer> {
  try {
    const maxOutputLength = Math.max(1, uncompressedBytes);
    return await gunzipAll(bytes, { maxOutputLength, chunkSize: uncompressedBytes + ROOM_BEHIND_BYTES });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the TOC cannot be decoded (${reason})`);
  }
}

/** Returns the content of the single entry in this end of a tar. */
function tocOf(member: Buffer): Buffer {
  const malformed = (problem: string) => new PullError('metadata-malformed', `the TOC ${problem}`);
  if (member.length < TAR_BLOCK_BYTES) throw malformed('is shorter than a tar header');
  verifyHeader(member.subarray(0, TAR_BLOCK_BYTES));
  if (textOf(member.subarray(0, 100)).toString('latin1') !== TOC_NAME)
    throw malformed(`is not named ${TOC_NAME}`);
  const end = TAR_BLOCK_BYTES + sizeFieldOf(member);
  if (end > member.length) throw malformed('is longer than its gzip member');
  return member.subarray(TAR_BLOCK_BYTES, end);
}

/**
 * Copies the data before the TOC that was fetched with it, at most 256 KiB, to shared memory for
 * the thread that fetches the rest.
 */
function shareLastBytes(bytes: Buffer, dataEnd: number): LayerMetadata['lastBytes'] {
  if (bytes.length === 0) return undefined;
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return { blobStart: dataEnd - bytes.length, bytes: shared };
}

function writeTail(member: Buffer): NonNullable<LayerMetadata['tail']> {
  const writer = packWriter();
  const region = writer.reserve(member.length);
  writer.writeUnindexed(region, member, region.start);
  return { pack: region.pack, packOffset: region.start, lengthBytes: member.length };
}
