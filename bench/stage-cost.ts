import { StageRecorder } from '../src/api/stages.js';

/**
 * Prints what the stages of a pull cost: nanoseconds of each call of the clock, as often as a MiB of tar takes them.
 * Run it with `node dist/bench/stage-cost.js`. CPU times of this process, so that other programs hardly matter.
 */

const CALLS = 2_000_000;

/** Pieces of a MiB of tar: decoded, hashed where digests are computed, written; the hash of the tar. */
const CHUNKED_PIECES = 4;
/**
 * Pieces of a MiB of tar without a table of contents, and of half a MiB of its blob: received bytes are
 * written in parts of 64 KiB, the blob is read and hashed, the tar walked, written and hashed.
 */
const OPAQUE_PIECES = 8 + 2 + 3;
/** Parts of half a MiB of a blob that are received. */
const PARTS = 8;
/** A range has up to 8 MiB of the blob. */
const RANGES = 1 / 16;

/** CPU nanoseconds of one call. */
function nanoseconds(call: () => void, calls = CALLS): number {
  for (let i = 0; i < calls / 10; i++) call();
  const before = process.cpuUsage();
  for (let i = 0; i < calls; i++) call();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / calls;
}

const { clock } = new StageRecorder();
const piece = nanoseconds(() => clock.end('decode', clock.start(), 2 ** 20));
const received = nanoseconds(() => clock.addBytes('fetch', 2 ** 16));
const range = nanoseconds(() => {
  clock.enter('fetch');
  clock.leave('fetch');
}, CALLS / 10);
const microseconds = (pieces: number) => (pieces * piece + PARTS * received + RANGES * range) / 1000;

process.stdout.write(
  `${piece.toFixed(0)} ns a piece, ${received.toFixed(0)} ns a part received, ${range.toFixed(0)} ns a range; a MiB of tar: ${microseconds(CHUNKED_PIECES).toFixed(1)} µs, without a table of contents ${microseconds(OPAQUE_PIECES).toFixed(1)} µs\n`,
);
