import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BlobPart, type CachedPart, planOpaque as partsOf, totalsOf } from '../../../src/plan/opaque.js';
import { type PlanLimits, planLimits } from '../../../src/plan/spans.js';
import { type Random, seededRandom } from '../../support/random.js';

const MIB = 2 ** 20;
const SEEDS = 2000;

const planOpaque = (blobBytes: number, cached: readonly CachedPart[], limits: PlanLimits): BlobPart[] => [
  ...partsOf({ blobBytes, cached }, limits),
];
const bytesOf = ({ blobStart, blobEnd }: BlobPart) => blobEnd - blobStart;
const isMissing = ({ cached }: BlobPart) => cached === undefined;

function run(blobStart: number, blobEnd: number): CachedPart {
  return { blobStart, blobEnd, pack: `pack-${blobStart}`, packOffset: blobStart * 2 };
}

/** Runs in order that do not overlap; some touch. */
function randomRuns(random: Random, blobBytes: number): CachedPart[] {
  const runs: CachedPart[] = [];
  for (let at = 0; random.chance(0.6); ) {
    const start = at + (random.chance(0.3) ? 0 : random.int(0, blobBytes / 4));
    const end = start + random.int(1, Math.ceil(blobBytes / 4));
    if (end > blobBytes) break;
    runs.push(run(start, end));
    at = end;
  }
  return runs;
}

test('the parts tile the blob and use every cached run unchanged', () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const blobBytes = random.chance(0.2) ? random.int(0, 10) : random.int(1, 200 * MIB);
    const cached = randomRuns(random, blobBytes);
    const limits = planLimits(random.int(1, 32));
    const parts = planOpaque(blobBytes, cached, limits);
    let at = 0;
    for (const part of parts) {
      assert.equal(part.blobStart, at, `seed ${seed}`);
      assert.ok(part.blobEnd > at && Number.isSafeInteger(part.blobEnd), `seed ${seed}`);
      at = part.blobEnd;
    }
    assert.equal(at, blobBytes, `seed ${seed}`);
    assert.deepEqual(
      parts.flatMap(({ cached }) => cached ?? []),
      cached,
    );
    for (const { cached, blobStart, blobEnd } of parts) {
      if (cached !== undefined) assert.deepEqual([cached.blobStart, cached.blobEnd], [blobStart, blobEnd]);
    }
  }
});

test('no request is longer than a span and a half, and none is tiny unless the missing run is', () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const blobBytes = random.int(1, 500 * MIB);
    const cached = randomRuns(random, blobBytes);
    const limits = planLimits(random.int(1, 32));
    const parts = planOpaque(blobBytes, cached, limits);
    for (const [i, part] of parts.entries()) {
      if (!isMissing(part)) continue;
      assert.ok(bytesOf(part) <= limits.spanBlobBytes * 1.5, `seed ${seed}`);
      const isAlone = [parts[i - 1], parts[i + 1]].every((other) => other === undefined || !isMissing(other));
      if (!isAlone) assert.ok(bytesOf(part) >= MIB / 4, `seed ${seed}: ${bytesOf(part)} bytes`);
    }
  }
});

test('requests begin short, grow to the length of a span, and are short again at the end', () => {
  const limits = planLimits(8);
  const sizes = planOpaque(1024 * MIB, [], limits).map(bytesOf);
  const largest = sizes.indexOf(limits.spanBlobBytes);
  const last = sizes.lastIndexOf(limits.spanBlobBytes);
  assert.equal(sizes[0], MIB / 2);
  for (const [i, bytes] of sizes.entries()) {
    const before = sizes[i - 1] ?? 0;
    if (i <= largest) assert.ok(bytes >= before, `part ${i}`);
    // The very last takes along what would be a crumb.
    else if (i > last && i + 1 < sizes.length) assert.ok(bytes <= before, `part ${i}`);
  }
  assert.ok(largest > 8 && last > largest && last < sizes.length - 8);
  assert.ok(sizes.at(-1)! <= 1.5 * limits.minSpanBytes);
});

test('while they grow, a request is at most an even share of what comes before it', () => {
  const limits = planLimits(8);
  for (const { blobStart, blobEnd } of planOpaque(1024 * MIB, [], limits)) {
    const share = Math.max(MIB / 2, blobStart / limits.connections);
    if (blobEnd < 1023 * MIB) assert.ok(blobEnd - blobStart <= Math.ceil(share), `at ${blobStart}`);
  }
});

test('cached bytes do not count as remaining work', () => {
  const limits = planLimits(4);
  const all = 800 * MIB;
  const tail = planOpaque(all, [run(0, all - 16 * MIB)], limits).filter(isMissing);
  // Two requests for each connection: 16 MiB / 8, and shorter ones from there.
  assert.deepEqual(bytesOf(tail[0]!), 2 * MIB);
  assert.ok(tail.length >= 8);
});

test('a small blob is one request', () => {
  assert.deepEqual(planOpaque(700_000, [], planLimits(8)), [{ blobStart: 0, blobEnd: 700_000 }]);
  assert.deepEqual(planOpaque(0, [], planLimits(8)), []);
});

test('a cached blob causes no request', () => {
  const cached = [run(0, 100), run(100, 5000)];
  assert.ok(planOpaque(5000, cached, planLimits(8)).every((part) => !isMissing(part)));
  assert.deepEqual(totalsOf({ blobBytes: 5000, cached }, planLimits(8)), {
    fetchBytes: 0,
    resumedBytes: 5000,
    requests: 0,
  });
});

test('totals are those of the parts', () => {
  const limits: PlanLimits = { ...planLimits(1), minSpanBytes: 1 };
  const cached = [run(1000, 1500), run(4000, 4100)];
  const parts = planOpaque(5000, cached, limits);
  assert.deepEqual(totalsOf({ blobBytes: 5000, cached }, limits), {
    fetchBytes: 4400,
    resumedBytes: 600,
    requests: parts.filter(isMissing).length,
  });
  assert.ok(parts.filter(isMissing).length >= 3);
});

test('totals are those of the parts, for blobs of any size and any cached parts', () => {
  for (let seed = 1; seed <= SEEDS / 10; seed++) {
    const random = seededRandom(seed);
    const blobBytes = random.int(1, 8 * 1024 * MIB);
    const cached = randomRuns(random, blobBytes);
    const limits = planLimits(random.int(1, 32));
    const { requests, fetchBytes, resumedBytes } = totalsOf({ blobBytes, cached }, limits);
    const parts = planOpaque(blobBytes, cached, limits);
    assert.equal(requests, parts.filter(isMissing).length, `seed ${seed}`);
    assert.equal(fetchBytes + resumedBytes, blobBytes, `seed ${seed}`);
  }
});

test('parts are made lazily, and totals without making any', () => {
  const blob = { blobBytes: 2 ** 53 - 1, cached: [] };
  assert.deepEqual(partsOf(blob, planLimits(8)).next().value, { blobStart: 0, blobEnd: MIB / 2 });
  assert.ok(totalsOf(blob, planLimits(8)).requests > 2 ** 29);
});
