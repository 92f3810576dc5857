import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { MAX_TOC_RAW_BYTES } from '../src/format/annotations.js';
import { type Digest, digestOfBytes } from '../src/format/digest.js';
import { PullError } from '../src/format/error.js';
import { footerGuessBytes, parseEstargzFooter } from '../src/format/footer.js';
import { sizeFieldOf, TAR_BLOCK_BYTES, textOf, verifyHeader } from '../src/format/tar-fields.js';
import { buildUnsplitTable } from '../src/format/unsplit-table-builder.js';
import type { BlobSource, LayerMetadata } from '../src/pool/messages.js';
import { packWriter } from './context.js';
import type { MetadataSource } from './metadata-source.js';
import type { ReadLayer } from './read-metadata.js';

/** The name of the tar entry that the TOC is. */
const TOC_NAME = 'stargz.index.json';

/** Beside the TOC its member has a header, padding and the blocks that end the archive. */
const TAR_OVERHEAD_BYTES = 64 * 1024;

/** Bytes with the wrong digest are fetched once more: something on the way may have kept a broken copy. */
const TRIES_FOR_DIGEST = 2;

const gunzipAll = promisify(gunzip);

/**
 * The metadata of an eStargz layer (stargz-snapshotter, docs/estargz.md), which the blob's footer leads to; undefined when it
 * has none. The TOC's gzip member is the end of the tar, too, and is written to this thread's pack at once.
 * @throws PullError `digest-mismatch` when the TOC does not have `tocDigest`, `metadata-malformed`
 */
export async function readStargz(
  source: MetadataSource,
  blob: BlobSource,
  tocDigest: Digest | undefined,
): Promise<ReadLayer | undefined> {
  for (let tries = 1; ; tries++) {
    const footer = parseEstargzFooter(await source.tail(footerGuessBytes(blob.sizeBytes)), blob.sizeBytes);
    if (footer === undefined) return undefined;
    const range = { start: footer.tocStart, end: footer.tocEnd };
    const member = await decodeMember(await source.part(range, range));
    const toc = tocOf(member);
    const actual = digestOfBytes(createHash('sha256').update(toc).digest());
    if (tocDigest === undefined || actual === tocDigest) {
      const table = buildUnsplitTable({ toc, dataEnd: range.start, compression: 'gzip' });
      const metadataBytes = blob.sizeBytes - range.start;
      const tail = writeTail(member);
      return { layer: { format: 'estargz', table, metadataBytes, tail }, rawBytes: member.length };
    }
    if (tries === TRIES_FOR_DIGEST) {
      throw new PullError(
        'digest-mismatch',
        `the TOC does not match its annotation: expected ${tocDigest}, got ${actual}, twice`,
      );
    }
    await source.forget();
  }
}

async function decodeMember(bytes: Buffer): Promise<Buffer> {
  try {
    return await gunzipAll(bytes, { maxOutputLength: MAX_TOC_RAW_BYTES + TAR_OVERHEAD_BYTES });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the TOC cannot be decoded (${reason})`);
  }
}

/** The content of the one entry of this end of a tar. */
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

function writeTail(member: Buffer): NonNullable<LayerMetadata['tail']> {
  const writer = packWriter();
  const region = writer.reserve(member.length);
  writer.writePlain(region, member, region.start);
  return { pack: region.pack, packOffset: region.start, lengthBytes: member.length };
}
