import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { digestAt, parseDigest } from '../../../../src/format/digest.js';
import { cutPoints, type LayerTable, SPAN_TAR_BYTES } from '../../../../src/format/layer-table.js';
import type { ContentRows } from '../../../../src/store/pack-writer.js';
import type { CheckedPiece } from '../../../../workers/fetch/content-checker.js';
import { TocOnlyChecker } from '../../../../workers/fetch/toc-only-checker.js';
import { noise, tarOf } from '../../../support/layout.js';
import { type Random, seededRandom } from '../../../support/random.js';
import { randomTar } from '../../../support/random-tar.js';
import {
  TOC_ONLY_FORMATS,
  type TocOnlyFormat,
  type TocOnlyLayer,
  withChunkRows,
  writeTocOnly,
} from '../../../support/toc-only-layers.js';

const PACK_AT = 7000;
const SEEDS = 8;
const SPANS = 40;

interface Member {
  readonly start: number;
  readonly bytes: Buffer;
}

/** A part of a layer from edge to edge: its members, and where the true tar is at before the first. */
interface Span {
  readonly table: LayerTable;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarAt: number;
  readonly members: readonly Member[];
}

/** A content or chunk, and where the true tar has it. */
interface Unit {
  readonly digest: string;
  readonly start: number;
  readonly end: number;
}

function spanOf({ members }: TocOnlyLayer, table: LayerTable, blobStart: number, blobEnd: number): Span {
  const isOwn = ({ start, end }: { start: number; end: number }) => start >= blobStart && end <= blobEnd;
  const tarAt = members.reduce((sum, { end, raw }) => sum + (end <= blobStart ? raw.length : 0), 0);
  const own = members.filter(isOwn).map(({ start, raw }) => ({ start, bytes: raw }));
  return { table, blobStart, blobEnd, tarAt, members: own };
}

function checkerOf({ table, blobStart, blobEnd }: Span): TocOnlyChecker {
  const blob = { url: 'http://x/', digest: parseDigest(`sha256:${'0'.repeat(64)}`, 'blob'), sizeBytes: 1e9 };
  const task = { task: 'fetch-span', blob, table, blobStart, blobEnd, pieceBytes: 1 } as const;
  return new TocOnlyChecker({ ...task, tarStart: 50, tarEnd: 1e9, checkContents: false });
}

/** The members joined into a few pieces. */
function piecesOf(members: readonly Member[], random: Random): Buffer[] {
  const pieces: Buffer[] = [];
  for (let first = 0; first < members.length; ) {
    const end = random.int(first + 1, Math.min(members.length, first + 4));
    pieces.push(Buffer.concat(members.slice(first, end).map(({ bytes }) => bytes)));
    first = end;
  }
  return pieces;
}

function listed({ digests, count, packOffset, lengthBytes }: ContentRows): Unit[] {
  return Array.from({ length: count }, (_, i) => {
    const [start, length] = [packOffset[i]!, lengthBytes[i]!];
    return { digest: digestAt(digests, i), start, end: start + length };
  });
}

/** Feeds the pieces until something is wrong. */
function check(span: Span, pieces: readonly Buffer[]): { proven: Unit[]; wrong: CheckedPiece['wrong'] } {
  const checker = checkerOf(span);
  const proven: Unit[] = [];
  let packAt = PACK_AT;
  for (const piece of pieces) {
    // What a piece is of must not be used once the next one comes.
    const bytes = Buffer.from(piece);
    const result = checker.check(bytes, 0, packAt);
    bytes.fill(0xee);
    proven.push(...listed(result.contents));
    if (result.wrong !== undefined) return { proven, wrong: result.wrong };
    packAt += piece.length;
  }
  return { proven, wrong: checker.finish() };
}

/** Contents, and their chunks where the table has these, in the true tar; of chunks before their content. */
function unitsOf({ entries, members }: TocOnlyLayer, table: LayerTable): Unit[] {
  const tarAt = new Map<number, number>();
  let at = 0;
  for (const { start, raw } of members) {
    tarAt.set(start, at);
    at += raw.length;
  }
  const contents = entries.filter(({ type, size = 0 }) => type === 'reg' && size > 0);
  return contents.flatMap(({ offset, innerOffset = 0, size }, row) => {
    const start = tarAt.get(offset!)! + innerOffset;
    const whole = { digest: digestAt(table.digests, row), start, end: start + size! };
    const [first, end] = [table.chunkFirst[row]!, table.chunkFirst[row + 1]!];
    if (first === end) return [whole];
    const inTar = (chunk: number) =>
      chunk === end ? whole.end : start + table.chunkTarStart[chunk]! - table.tarStart[row]!;
    const chunks = Array.from({ length: end - first }, (_, i) => ({
      digest: digestAt(table.chunkDigests, first + i),
      start: inTar(first + i),
      end: inTar(first + i + 1),
    }));
    return size! <= SPAN_TAR_BYTES ? [...chunks, whole] : chunks;
  });
}

/** The units that a span has, where its pack has them. */
function expectedUnits(span: Span, units: readonly Unit[]): Unit[] {
  const end = span.members.reduce((sum, { bytes }) => sum + bytes.length, span.tarAt);
  return units
    .filter((unit) => unit.start >= span.tarAt && unit.end <= end)
    .map(({ digest, start, end }) => ({
      digest,
      start: start - span.tarAt + PACK_AT,
      end: end - span.tarAt + PACK_AT,
    }));
}

/** Random spans of random layers, with and without chunk rows. */
async function eachSpan(
  format: TocOnlyFormat,
  visit: (span: Span, units: readonly Unit[], random: Random) => void,
): Promise<void> {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const options = { chunkBytes: 50_000, minChunkBytes: (seed % 3) * 30_000 };
    const layer = await writeTocOnly(format, randomTar(random), options);
    for (const table of [layer.table, withChunkRows(layer)]) {
      const { blobAt, count } = cutPoints(table);
      const units = unitsOf(layer, table);
      for (let spans = 0; spans < SPANS && count > 1; spans++) {
        const first = random.int(0, count - 2);
        const last = random.int(first + 1, Math.min(count - 1, first + 6));
        try {
          visit(spanOf(layer, table, blobAt[first]!, blobAt[last]!), units, random);
        } catch (error) {
          throw new Error(`seed ${seed}, ${blobAt[first]} to ${blobAt[last]}`, { cause: error });
        }
      }
    }
  }
}

for (const format of TOC_ONLY_FORMATS) {
  test(`${format}: the contents of a span are proven, wherever it begins and ends and its pieces are cut`, async () => {
    let units = 0;
    await eachSpan(format, (span, all, random) => {
      const { proven, wrong } = check(span, piecesOf(span.members, random));
      assert.equal(wrong, undefined);
      const expected = expectedUnits(span, all);
      assert.deepEqual(proven, expected);
      units += expected.length;
    });
    assert.ok(units > 500, `${units}`);
  });

  test(`${format}: a wrong byte is found in its content or chunk`, async () => {
    await eachSpan(format, (span, all, random) => {
      const bytes = Buffer.concat(span.members.map((member) => member.bytes));
      const expected = expectedUnits(span, all);
      if (expected.length === 0) return;
      const some = expected[random.int(0, expected.length - 1)]!;
      const badAt = random.int(some.start, some.end - 1);
      bytes[badAt - PACK_AT]! ^= 1;
      // Of a content and its chunk, the chunk is known first.
      const which = expected.findIndex(({ start, end }) => start <= badAt && badAt < end);
      const bad = expected[which]!;
      let at = 0;
      const members = span.members.map((member) => {
        const part = bytes.subarray(at, at + member.bytes.length);
        at += part.length;
        return { ...member, bytes: part };
      });
      const { proven, wrong } = check(span, piecesOf(members, random));
      assert.deepEqual(proven, expected.slice(0, which));
      assert.equal(wrong?.expected, bad.digest);
      assert.notEqual(wrong?.actual, bad.digest);
      assert.match(wrong?.problem ?? '', /has the digest sha256:/);
      // The whole span is fetched again: without its tar nobody can say where in the blob it went wrong.
      assert.deepEqual([wrong?.blobStart, wrong?.tarStart], [span.blobStart, 50]);
    });
  });

  test(`${format}: a span that ends before its contents do is wrong`, async () => {
    let tried = 0;
    await eachSpan(format, (span, all, random) => {
      const expected = expectedUnits(span, all);
      const last = expected.at(-1);
      if (last === undefined) return;
      let end = span.members.reduce((sum, { bytes }) => sum + bytes.length, PACK_AT);
      const members = [...span.members];
      while (end >= last.end) end -= members.pop()!.bytes.length;
      const { wrong } = check(span, piecesOf(members, random));
      assert.match(wrong?.problem ?? '', /end before their contents do/);
      tried += 1;
    });
    assert.ok(tried > 100);
  });
}

const layers = new Map<TocOnlyFormat, TocOnlyLayer>();
const FILES = { a: noise(1, 700), b: noise(2, 300), c: noise(3, 5) };

before(async () => {
  for (const format of TOC_ONLY_FORMATS) layers.set(format, await writeTocOnly(format, tarOf(FILES)));
});

/** The layer with these bytes changed. */
function checkChanged(format: TocOnlyFormat, change: (tar: Buffer) => Buffer) {
  const layer = layers.get(format)!;
  const span = spanOf(layer, layer.table, 0, layer.dataEnd);
  return check(span, [change(Buffer.concat(span.members.map(({ bytes }) => bytes)))]);
}

test('a file of another size than in the TOC is wrong, and contents before it are proven', () => {
  for (const format of TOC_ONLY_FORMATS) {
    const { proven, wrong } = checkChanged(format, (tar) => {
      const other = tarOf({ ...FILES, b: noise(2, 301) });
      const from = tar.length - tarOf(FILES).length;
      // Stargz has a landmark before the files, and the TOC as the last one behind them.
      const start = format === 'zstd:chunked-old' ? from : 1024;
      return Buffer.concat([tar.subarray(0, start), other]);
    });
    assert.match(wrong?.problem ?? '', /the tar has a file of 301 bytes where the TOC has one of 300/);
    assert.ok(
      proven.some(
        ({ digest }) => digest === layers.get(format)!.entries.find(({ name }) => name === 'a')?.digest,
      ),
    );
  }
});

test('a file that the TOC lacks is wrong', () => {
  const { wrong } = checkChanged('zstd:chunked-old', () => tarOf({ ...FILES, d: noise(4, 9) }));
  assert.match(wrong?.problem ?? '', /the tar has a file of 9 bytes where the TOC has no further file/);
});

test('a file that the tar lacks is wrong at the end', () => {
  const { a, b } = FILES;
  const { proven, wrong } = checkChanged('zstd:chunked-old', () => tarOf({ a, b }));
  assert.match(wrong?.problem ?? '', /end before their contents do/);
  assert.equal(proven.length, 2);
});

test('bytes that are no tar are malformed', () => {
  for (const format of TOC_ONLY_FORMATS) {
    assert.throws(() => checkChanged(format, (tar) => noise(1, tar.length)), { code: 'metadata-malformed' });
  }
});
