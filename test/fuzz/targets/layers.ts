/** What is in a layer: table of contents, tar-split, frames, streams. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import { compress, decompress } from '@mongodb-js/zstd';
import fc from 'fast-check';
import { DIGEST_BYTES, parseDigest } from '../../../src/format/digest.js';
import { cutPoints, type LayerTable } from '../../../src/format/layer-table.js';
import { buildLayerTable } from '../../../src/format/layer-table-builder.js';
import { parseEstargzFooter } from '../../../src/format/metadata-position.js';
import { copyTarBytes, scanTarSplit } from '../../../src/format/tar-split.js';
import { contentPath, scanToc, tocTarSplitDigest } from '../../../src/format/toc.js';
import { buildTocOnlyTable } from '../../../src/format/toc-only-table-builder.js';
import { FrameWalker } from '../../../src/format/zstd-frame.js';
import { ContentChecker, type SpanChecker } from '../../../workers/fetch/content-checker.js';
import { MemberWalker } from '../../../workers/fetch/member-walker.js';
import { TocOnlyChecker } from '../../../workers/fetch/toc-only-checker.js';
import { GzipDecoder } from '../../../workers/opaque/gzip-decoder.js';
import { DecodedQueue, type StreamDecoder, StreamProblem } from '../../../workers/opaque/stream-decoder.js';
import { ZstdDecoder } from '../../../workers/opaque/zstd-decoder.js';
import { cutUp } from '../../support/chunked-layers.js';
import { USUAL_WINDOWS } from '../../support/decoding.js';
import { mutatedJson } from '../json.js';
import { mutated } from '../mutate.js';
import { chunkedLayer, layerOf, TAR } from '../seeds.js';
import { type Target, target, tolerate } from '../target.js';

const CHUNKED = await chunkedLayer();
const TOC: unknown = JSON.parse(CHUNKED.toc.toString());
const LINES = CHUNKED.tarSplit.toString().trim().split('\n');

const TOC_WORDS = [
  'type',
  'reg',
  'chunk',
  'offset',
  'endOffset',
  'chunkSize',
  'chunkOffset',
  'innerOffset',
  'size',
];

const toc = target('toc', mutatedJson([TOC], TOC_WORDS), (bytes) => {
  const contents = tolerate(
    () => {
      let count = 0;
      scanToc(bytes, (entry) => {
        if (entry.type === 'reg' && entry.sizeBytes > 0) count += 1;
        return true;
      });
      return count;
    },
    'metadata-malformed',
    'unsupported',
  );
  if (contents === undefined) return;
  JSON.parse(bytes.toString());
  tocTarSplitDigest(bytes);
  for (let row = 0; row < Math.min(contents, 3); row++) assert.ok(contentPath(bytes, row).length <= 2000);
});

/** Lines of a tar-split, each changed as JSON, or all as bytes. */
const tarSplits = fc.oneof(
  fc
    .array(fc.tuple(fc.nat(LINES.length - 1), mutatedJson(LINES.map((line) => JSON.parse(line)))), {
      maxLength: 3,
    })
    .map((changes) => {
      const lines = [...LINES];
      for (const [at, line] of changes) lines[at] = line.toString();
      return Buffer.from(`${lines.join('\n')}\n`);
    }),
  mutated([CHUNKED.tarSplit], ['{"type":2,"payload":"', '{"type":1,"size":', '====', '}\n']),
);

const tarSplit = target('tar-split', tarSplits, (bytes) => {
  const tarBytes = tolerate(() => scanTarSplit(bytes, () => {}), 'metadata-malformed');
  if (tarBytes === undefined) return;
  let end = 0;
  const raw: number[] = [];
  const expected: Buffer[] = [];
  scanTarSplit(bytes, ({ kind, tarStart, lengthBytes, payloadStart, payloadEnd }) => {
    assert.equal(tarStart, end);
    end += lengthBytes;
    if (kind !== 'raw' || lengthBytes === 0) return;
    raw.push(tarStart, end);
    expected.push(Buffer.from(bytes.toString('latin1', payloadStart, payloadEnd), 'base64'));
  });
  assert.equal(end, tarBytes);
  const parts: Buffer[] = [];
  const copied = tolerate(() => {
    copyTarBytes(bytes, Float64Array.from(raw), (part) => parts.push(Buffer.from(part)));
    return true;
  }, 'metadata-malformed');
  if (copied === true) assert.ok(Buffer.concat(parts).equals(Buffer.concat(expected)));
});

const layerTable = target(
  'layer-table',
  fc.tuple(mutatedJson([TOC], TOC_WORDS), tarSplits, fc.nat(2)),
  (parts) => {
    const [changedToc, changedSplit, which] = parts;
    const metadata = {
      toc: which === 0 ? CHUNKED.toc : changedToc,
      tarSplit: which === 1 ? CHUNKED.tarSplit : changedSplit,
      tocStart: CHUNKED.positions.toc.start - 8,
    };
    const table = tolerate(() => buildLayerTable(metadata), 'metadata-malformed', 'unsupported');
    if (table !== undefined) assertTable(table);
  },
);

const STARGZ_TOC = await estargzToc();

/** The TOC of an eStargz layer: the last file of the tar, in the member that the footer leads to. */
async function estargzToc(): Promise<unknown> {
  const { blob } = await layerOf('estargz');
  const { tocStart, tocEnd } = parseEstargzFooter(blob.subarray(-51), blob.length)!;
  const file = gunzipSync(blob.subarray(tocStart, tocEnd)).subarray(512);
  return JSON.parse(file.toString('utf8', 0, file.indexOf(0)));
}

const tocOnlyTable = target(
  'toc-only-table',
  fc.tuple(
    mutatedJson([TOC, STARGZ_TOC], TOC_WORDS),
    fc.constantFrom('zstd', 'gzip'),
    fc.oneof(fc.nat(8192), fc.maxSafeNat()),
  ),
  ([bytes, compression, dataEnd]) => {
    const table = tolerate(
      () => buildTocOnlyTable({ toc: bytes, dataEnd, compression }),
      'metadata-malformed',
      'unsupported',
    );
    if (table === undefined) return;
    assertTable(table);
    const edges = cutPoints(table);
    for (let edge = 1; edge < edges.count; edge++) {
      assert.ok(edges.blobAt[edge]! > edges.blobAt[edge - 1]!);
      assert.ok(edges.tarAt[edge]! >= edges.tarAt[edge - 1]!);
    }
    if (compression === 'gzip') walkMembers(table);
  },
);

/** The invariants that LayerTable states. */
function assertTable(table: LayerTable): void {
  const { count, blobStart, blobEnd, tarStart, sizeBytes, chunkFirst, dataEnd, tarBytes, layout } = table;
  for (let row = 0; row < count; row++) {
    assert.ok(sizeBytes[row]! > 0 && blobStart[row]! < blobEnd[row]! && blobEnd[row]! <= dataEnd);
    assert.ok(tarStart[row]! + sizeBytes[row]! <= (row + 1 < count ? tarStart[row + 1]! : tarBytes));
    const next = row + 1 < count ? blobStart[row + 1]! : dataEnd;
    if (layout !== 'shared-frames') assert.ok(blobEnd[row]! <= next);
    assert.ok(chunkFirst[row]! <= chunkFirst[row + 1]!);
  }
  assert.ok(Number.isSafeInteger(tarBytes));
}

function walkMembers(table: LayerTable): void {
  const walker = new MemberWalker(table, 0, table.dataEnd);
  const bytes = Buffer.alloc(0);
  for (const length of [1, 100, 5000]) {
    walker.advance(bytes, length);
    assert.ok(walker.completeBytes <= length && walker.openFrameBytes >= 0);
    if (walker.frameCount > 0) walker.cut(walker.frameEnd(0));
  }
}

/** A span of a layer: from one edge of its table to another, and what comes as its bytes. */
const spans = fc.tuple(
  fc.oneof(fc.constant(undefined), mutatedJson([TOC, STARGZ_TOC], TOC_WORDS)),
  mutated([TAR, TAR.subarray(512), TAR.subarray(2048)]),
  fc.tuple(fc.nat(999), fc.nat(999)),
  fc.integer({ min: 1, max: 4096 }),
);

const PACK_AT = 7000;

/** What a checker says is proven goes into a pack's index: it must be there, whatever TOC and bytes are. */
const spanChecker = target('span-checker', spans, ([changedToc, bytes, [from, to], pieceBytes]) => {
  const dataEnd = CHUNKED.positions.toc.start - 8;
  const { toc: goodToc, tarSplit } = CHUNKED;
  const table = tolerate(
    () =>
      changedToc === undefined
        ? buildLayerTable({ toc: goodToc, tarSplit, tocStart: dataEnd })
        : buildTocOnlyTable({ toc: changedToc, dataEnd, compression: 'zstd' }),
    'metadata-malformed',
    'unsupported',
  );
  if (table === undefined) return;
  const { blobAt, tarAt, count } = cutPoints(table);
  const [first, last] = [from % count, to % count].sort((a, b) => a - b) as [number, number];
  const blob = { url: 'http://x/', digest: NO_DIGEST, sizeBytes: dataEnd };
  const range = {
    blobStart: blobAt[first]!,
    blobEnd: blobAt[last]!,
    tarStart: tarAt[first]!,
    tarEnd: tarAt[last]!,
  };
  const how = { pieceBytes: 1, checkContents: true } as const;
  const task = { task: 'fetch-span', blob, table, ...range, ...how } as const;
  const checker = table.layout === 'tar-split' ? new ContentChecker(task) : new TocOnlyChecker(task);
  const checked = tolerate(
    () => checkPieces(checker, bytes, range.tarStart, pieceBytes),
    'metadata-malformed',
  );
  if (checked === true) checker.finish();
});

const NO_DIGEST = parseDigest(`sha256:${'0'.repeat(64)}`, 'it');

/** Gives the checker the bytes piece by piece until something is wrong. Returns whether nothing was. */
function checkPieces(checker: SpanChecker, bytes: Buffer, tarStart: number, pieceBytes: number): boolean {
  let at = 0;
  for (const piece of cutUp(bytes, Math.max(pieceBytes, bytes.length >> 6))) {
    const { contents, wrong } = checker.check(Buffer.from(piece), tarStart + at, PACK_AT + at);
    for (let row = 0; row < contents.count; row++) {
      const start = contents.packOffset[row]! - PACK_AT;
      const content = bytes.subarray(start, start + contents.lengthBytes[row]!);
      const digest = createHash('sha256').update(content).digest();
      assert.ok(digest.equals(contents.digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES)));
    }
    if (wrong !== undefined) return false;
    at += piece.length;
  }
  return true;
}

function frame(text: string, repeats: number): Promise<Buffer> {
  return compress(Buffer.alloc(text.length * repeats, text), 3);
}

const ZSTD_SEEDS = [
  await frame('zpull', 1),
  await frame('a longer text that is repeated', 200),
  Buffer.concat([await frame('x', 3), Buffer.from('502a4d1803000000abc', 'latin1'), await frame('y', 1)]),
  Buffer.from('28b52ffd0058030000010000', 'hex'),
  CHUNKED.blob,
  Buffer.concat([Buffer.from('502a4d1804000000', 'hex'), Buffer.from('skip'), await frame('z', 70_000)]),
];
const ZSTD_WORDS = ['\x28\xb5\x2f\xfd', '\x50\x2a\x4d\x18'];

interface Walked {
  readonly ends: readonly number[];
  readonly bound: number;
  readonly error: string | undefined;
}

/** Walks the bytes as they come in pieces of one size. */
function walkFrames(bytes: Buffer, pieceBytes: number): Walked {
  const walker = new FrameWalker();
  let error: string | undefined;
  const walked = () => Array.from({ length: walker.frameCount }, (_, row) => walker.frameEnd(row));
  for (let end = 0; end < bytes.length && error === undefined; ) {
    end = Math.min(bytes.length, end + pieceBytes);
    tolerate(
      () => {
        try {
          walker.advance(bytes, end);
        } catch (problem) {
          error = String(problem);
          throw problem;
        }
      },
      'metadata-malformed',
      'unsupported',
    );
  }
  const { frameCount } = walker;
  return { ends: walked(), bound: frameCount === 0 ? 0 : walker.boundUpTo(frameCount - 1), error };
}

/** Above what one call of the decoder is given; the walker says so before. */
const MAX_DECODED_BYTES = 2 ** 22;

const zstdFrames = target(
  'zstd-frames',
  fc.tuple(mutated(ZSTD_SEEDS, ZSTD_WORDS), fc.integer({ min: 1, max: 999 })),
  async ([bytes, pieceBytes]) => {
    const whole = walkFrames(bytes, bytes.length);
    assert.deepEqual(walkFrames(bytes, pieceBytes), whole);
    const end = whole.ends.at(-1) ?? 0;
    assert.ok(end <= bytes.length);
    if (whole.error !== undefined || end === 0 || whole.bound > MAX_DECODED_BYTES) return;
    const decoded = await decompress(bytes.subarray(0, end)).catch(() => undefined);
    if (decoded !== undefined) assert.ok(decoded.length <= whole.bound);
  },
);

/** What makes a decoder stop: a blob that decodes to more is cut off by its taker. */
class Enough extends Error {}

/** What the pieces decode to; undefined where the decoder, or the taker of too much, refuses them. */
async function decoded(
  make: (out: DecodedQueue) => StreamDecoder,
  pieces: readonly Buffer[],
): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let length = 0;
  const out = new DecodedQueue((bytes) => {
    length += bytes.length;
    if (length > MAX_DECODED_BYTES) throw new Enough();
    parts.push(Buffer.from(bytes));
  });
  const decoder = make(out);
  try {
    for (const piece of pieces) await decoder.write(piece);
    await decoder.end();
    return Buffer.concat(parts);
  } catch (error) {
    if (error instanceof StreamProblem || error instanceof Enough) return undefined;
    throw error;
  } finally {
    out.close();
    await decoder.close();
  }
}

const GZIP_SEEDS = [
  gzipSync('zpull'),
  gzipSync(TAR),
  gzipSync(Buffer.alloc(300_000)),
  Buffer.concat([gzipSync('a'), Buffer.alloc(9), gzipSync(''), gzipSync('b'.repeat(500))]),
];

const gzipStream = target(
  'gzip-stream',
  fc.tuple(mutated(GZIP_SEEDS, ['\x1f\x8b\x08']), fc.integer({ min: 1, max: 4096 })),
  async ([bytes, pieceBytes]) => {
    const pieces = cutUp(bytes, Math.max(pieceBytes, bytes.length >> 6));
    const inPieces = await decoded((out) => new GzipDecoder(out), pieces);
    const whole = await decoded((out) => new GzipDecoder(out), [bytes]);
    assert.deepEqual(inPieces, whole);
  },
);

const zstdStream = target(
  'zstd-stream',
  fc.tuple(mutated(ZSTD_SEEDS, ZSTD_WORDS), fc.integer({ min: 1, max: 4096 })),
  async ([bytes, pieceBytes]) => {
    const walked = walkFrames(bytes, bytes.length);
    if (walked.bound > 16 * MAX_DECODED_BYTES) return;
    const pieces = cutUp(bytes, Math.max(pieceBytes, bytes.length >> 6));
    const inPieces = await decoded((out) => new ZstdDecoder('script', out, USUAL_WINDOWS), pieces);
    const whole = await decoded((out) => new ZstdDecoder('script', out, USUAL_WINDOWS), [bytes]);
    assert.deepEqual(inPieces, whole);
  },
);

export const LAYER_TARGETS: readonly Target[] = [
  toc,
  tarSplit,
  layerTable,
  tocOnlyTable,
  spanChecker,
  zstdFrames,
  gzipStream,
  zstdStream,
];
