import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { type Digest, parseDigest } from '../../src/format/digest.js';
import { type Failure, fromFailure, PullError, toFailure } from '../../src/format/error.js';
import type { MetadataLocation } from '../../src/format/layer-format.js';
import { buildLayerTable } from '../../src/format/layer-table-builder.js';
import {
  CHUNKED_FOOTER_BYTES,
  footerGuessBytes,
  type MetadataLength,
  metadataMemoryBytes,
  parseChunkedFooter,
  parseEstargzFooter,
} from '../../src/format/metadata-position.js';
import {
  paddingOf,
  sizeFieldOf,
  TAR_BLOCK_BYTES,
  textOf,
  verifyHeader,
} from '../../src/format/tar-fields.js';
import { copyTarBytes } from '../../src/format/tar-split.js';
import { tarHeader } from '../../src/format/tar-writer.js';
import { tocTarSplitDigest } from '../../src/format/toc.js';
import { eachTocHeader } from '../../src/format/toc-headers.js';
import { buildTocOnlyTable } from '../../src/format/toc-only-table-builder.js';
import { SKIPPABLE_HEADER_BYTES } from '../../src/format/zstd-frame.js';
import type {
  LayerMetadata,
  MetadataPart,
  MetadataPartWithDigest,
  PackRun,
  ReadMetadataResult,
  ReadMetadataTask,
  WriteInlineTask,
  WrittenHeaders,
} from '../../src/pool/messages.js';
import { MAX_DIGEST_TRIES } from '../../src/registry/retry-rules.js';
import { sha256Of } from '../../src/store/image-record.js';
import { PackedParts, packWriter, paths, writeRun } from '../context.js';
import { releaseLargeGarbage } from '../garbage.js';
import { MetadataSource, readTarSplit, readToc } from './metadata-source.js';

/** The name of the tar entry with the TOC. */
const TOC_NAME = 'stargz.index.json';

/** The last four bytes of a gzip member are its decoded length (RFC 1952, ISIZE). */
const ISIZE_BYTES = 4;

/** zlib requires room after the last byte to detect the end. */
const ROOM_BEHIND_BYTES = 64;

/** The layer whose metadata is being read. */
interface Layer extends Pick<ReadMetadataTask, 'blob' | 'withHeaders'> {
  readonly source: MetadataSource;
  /**
   * Reserves memory for the metadata; resolves when it is available. Another call replaces the
   * reservation. Rejects with PullError `metadata-malformed` or `unsupported` if it never will be.
   */
  readonly reserve: (toc: MetadataLength, tarSplit?: MetadataLength) => Promise<void>;
}

/**
 * Reads TOC and tar-split from the store, or fetches, verifies and stores them, and builds the
 * layer's table.
 */
export async function readMetadata(task: ReadMetadataTask): Promise<ReadMetadataResult> {
  const { blob, location, withHeaders, port } = task;
  const source = new MetadataSource(blob);
  let reservedBytes = 0;
  const reserve: Layer['reserve'] = async (toc, tarSplit) => {
    const memoryBytes = metadataMemoryBytes(toc, tarSplit);
    const refusal = await new Promise<Failure | null>((resolve) => {
      port.once('message', resolve);
      port.postMessage(memoryBytes);
    });
    if (refusal !== null) throw fromFailure(refusal);
    reservedBytes = memoryBytes;
  };
  const cost = () => ({ fetchedBytes: source.fetchedBytes, requests: source.requests });
  try {
    const metadata = await read({ source, blob, withHeaders, reserve }, location);
    return { ...(metadata && { metadata }), ...cost() };
  } catch (error) {
    return { failure: toFailure(error), ...cost() };
  } finally {
    port.close();
    // Before the next layer gets the memory.
    await releaseLargeGarbage(reservedBytes);
  }
}

async function read(layer: Layer, location: MetadataLocation): Promise<LayerMetadata | undefined> {
  if (location.by === 'annotations') return readChunked(layer, location.toc, location.tarSplit);
  if (location.compression === 'gzip') {
    const metadata = await readStargz(layer, location.tocDigest);
    return metadata ?? (location.otherwise && read(layer, location.otherwise));
  }
  const { source, blob } = layer;
  const footer = parseChunkedFooter(await source.tail(CHUNKED_FOOTER_BYTES), blob.sizeBytes);
  return footer && readChunked(layer, footer.toc, footer.tarSplit);
}

/** Without a digest, which only annotations state, the store gets the actual one. */
async function readChunked(
  { source, withHeaders, reserve }: Layer,
  toc: MetadataPart & Partial<MetadataPartWithDigest>,
  tarSplit: MetadataPart | undefined,
): Promise<LayerMetadata> {
  await reserve(lengthOf(toc), tarSplit && lengthOf(tarSplit));
  const digest = toc.digest ?? sha256Of(await source.part(toc, tarSplit));
  const json = await readToc(source, { ...toc, digest }, tarSplit);
  const dataEnd = toc.start - SKIPPABLE_HEADER_BYTES;
  const storedToc = { digest, uncompressedBytes: toc.uncompressedBytes };
  if (tarSplit === undefined) {
    return {
      format: 'zstd:chunked-no-tarsplit',
      table: buildTocOnlyTable({ toc: json, dataEnd, compression: 'zstd' }),
      metadataBytes: toc.end - toc.start,
      toc: storedToc,
      ...(withHeaders && { headers: writeHeaders(json) }),
    };
  }
  const split = { ...tarSplit, digest: tarSplitDigest(json, tarSplit.digest) };
  return {
    format: 'zstd:chunked',
    table: buildLayerTable({ toc: json, tarSplit: await readTarSplit(source, split), tocStart: dataEnd }),
    metadataBytes: toc.end - toc.start + (tarSplit.end - tarSplit.start),
    toc: storedToc,
    tarSplit: split,
  };
}

function lengthOf({ start, end, uncompressedBytes }: MetadataPart): MetadataLength {
  return { bytes: end - start, uncompressedBytes };
}

/**
 * Returns the metadata of an eStargz layer (stargz-snapshotter, docs/estargz.md), found by the
 * footer of the blob; undefined if it has none. The gzip member of the TOC is also the end of the
 * tar, and is written to this thread's pack, unless the store is read-only.
 * @throws PullError `digest-mismatch` if the TOC does not have `tocDigest`; `metadata-malformed`
 */
async function readStargz(
  { source, blob, withHeaders, reserve }: Layer,
  tocDigest: Digest | undefined,
): Promise<LayerMetadata | undefined> {
  for (let tries = 1; ; tries++) {
    const footer = parseEstargzFooter(await source.tail(footerGuessBytes(blob.sizeBytes)), blob.sizeBytes);
    if (footer === undefined) return undefined;
    const range = { start: footer.tocStart, end: footer.tocEnd };
    const isize = { start: Math.max(range.start, range.end - ISIZE_BYTES), end: range.end };
    const uncompressedBytes = (await source.part(isize)).readUInt32LE();
    await reserve({ bytes: range.end - range.start, uncompressedBytes });
    const member = await decodeMember(await source.part(range), uncompressedBytes);
    const toc = tocOf(member);
    const actual = sha256Of(toc);
    if (tocDigest === undefined || actual === tocDigest) {
      const lastBytes = shareLastBytes(source.before(range.start), range.start);
      return {
        format: 'estargz',
        table: buildTocOnlyTable({ toc, dataEnd: range.start, compression: 'gzip' }),
        metadataBytes: blob.sizeBytes - range.start,
        ...(lastBytes && { lastBytes }),
        ...(withHeaders && { headers: writeHeaders(toc, TOC_NAME) }),
        ...(!paths.isReadOnly && { tail: writeRun(member) }),
      };
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
    return await promisify(gunzip)(bytes, {
      maxOutputLength,
      chunkSize: uncompressedBytes + ROOM_BEHIND_BYTES,
    });
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

/** Returns the digest that the TOC or the annotation states. If both do, they must agree. */
function tarSplitDigest(toc: Buffer, annotated: Digest | undefined): Digest {
  const stated = tocTarSplitDigest(toc);
  if (stated !== undefined && annotated !== undefined && stated !== annotated) {
    throw new PullError(
      'metadata-malformed',
      'the TOC and the annotation tarsplit-checksum state different digests',
    );
  }
  const digest = stated ?? annotated;
  if (digest === undefined) {
    throw new PullError(
      'metadata-malformed',
      'neither the TOC (tarSplitDigest) nor an annotation states the digest of tar-split',
    );
  }
  return parseDigest(digest, 'tarSplitDigest');
}

/** Appends these ranges of tar-split to this thread's pack, in one run. */
export async function writeInline({ blob, tarSplit, ranges }: WriteInlineTask): Promise<PackRun> {
  try {
    const bytesOfTar = await readTarSplit(new MetadataSource(blob), tarSplit);
    let lengthBytes = 0;
    for (let i = 0; i < ranges.length; i += 2) lengthBytes += ranges[i + 1]! - ranges[i]!;
    const writer = packWriter();
    const region = writer.reserve(lengthBytes);
    let at = region.start;
    copyTarBytes(bytesOfTar, ranges, (bytes) => {
      writer.writeUnindexed(region, bytes, at);
      at += bytes.length;
    });
    return { pack: region.pack, packOffset: region.start, lengthBytes };
  } finally {
    await releaseLargeGarbage(tarSplit.uncompressedBytes);
  }
}

/**
 * Writes the headers of a tar with the entries of a TOC to this thread's pack.
 * @param tocName adds the TOC under this name as the last file, as eStargz has it; it is no row of
 *   the layer's table
 * @throws PullError as `eachTocHeader` and `storageError`
 */
function writeHeaders(toc: Buffer, tocName?: string): WrittenHeaders {
  const parts = new PackedParts();
  const ranges: number[] = [];
  let [start, at] = [0, 0];
  const add = (header: Buffer, contentBytes: number) => {
    parts.add(header);
    at += header.length;
    if (contentBytes === 0) return;
    ranges.push(start, at);
    at += contentBytes + paddingOf(contentBytes);
    start = at;
  };
  eachTocHeader(toc, add);
  if (tocName !== undefined) {
    const ids = { mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
    add(tarHeader({ type: '0', name: tocName, sizeBytes: toc.length, ...ids }), toc.length);
  }
  parts.flush();
  if (at > start) ranges.push(start, at);
  return { extents: parts.extents.toRows(), ranges: Float64Array.from(ranges), tarBytes: at };
}
