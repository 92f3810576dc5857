/** The content of a generated file; equal values give equal bytes. */
export interface SampleContent {
  readonly kind: 'text' | 'noise';
  readonly seed: number;
  readonly sizeBytes: number;
}

/** Content is generated in pieces of this size, which bounds the memory. */
const PIECE_BYTES = 2 ** 20;

/** Number of different words: a file compresses to about a third. */
const WORDS = 1500;

/**
 * Text consists of runs of lines from one pool, which are copied 200 bytes at a time instead of
 * word by word.
 */
const POOL_BYTES = 2 ** 20;
const RUN_LINES = 3;

/**
 * Every 4 KiB of noise start with the same 256 bytes, since object files and archives compress a
 * little too.
 */
const NOISE_BLOCK_BYTES = 4096;
const NOISE_HEAD_BYTES = 256;

interface TextPool {
  readonly bytes: Buffer;
  /** Start of each line, then the end of the last line. */
  readonly lines: Uint32Array;
}

let pool: TextPool | undefined;

/** Yields the bytes of a generated file; each piece is a new buffer. */
export function* contentPieces(content: SampleContent): Generator<Buffer> {
  pool ??= createPool();
  const prng = createPrng(content.seed, content.kind === 'text' ? 1 : 2);
  for (let left = content.sizeBytes; left > 0; ) {
    const piece = Buffer.allocUnsafe(Math.min(left, PIECE_BYTES));
    if (content.kind === 'text') fillText(piece, prng, pool);
    else fillNoise(piece, prng, pool);
    left -= piece.length;
    yield piece;
  }
}

function fillText(piece: Buffer, prng: Prng, { bytes, lines }: TextPool): void {
  const runs = lines.length - 1 - RUN_LINES;
  for (let at = 0; at < piece.length; ) {
    const line = prng.below(runs);
    at += bytes.copy(piece, at, lines[line]!, lines[line + RUN_LINES]!);
  }
}

function fillNoise(piece: Buffer, prng: Prng, { bytes }: TextPool): void {
  const words = new Uint32Array(Math.ceil(piece.length / 4));
  // xorshift32 (Marsaglia 2003): one word in a nanosecond, which zstd cannot compress.
  let state = prng.next() | 1;
  for (let at = 0; at < words.length; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  Buffer.from(words.buffer).copy(piece);
  const start = prng.below(bytes.length - NOISE_HEAD_BYTES);
  for (let at = 0; at < piece.length; at += NOISE_BLOCK_BYTES) {
    bytes.copy(piece, at, start, start + NOISE_HEAD_BYTES);
  }
}

function createPool(): TextPool {
  const prng = createPrng(0, 0);
  const words = Array.from({ length: WORDS }, () => randomWord(prng));
  const lines = [0];
  let text = '';
  while (text.length < POOL_BYTES) {
    // Few words are frequent and many are rare, as in natural languages. Not Math.pow, whose last
    // digit differs between versions of Node: one different byte changes the digest.
    const count = 6 + prng.below(10);
    const line = Array.from(
      { length: count },
      () => words[Math.floor(prng.unit() * prng.unit() * prng.unit() * WORDS)],
    );
    text += `${line.join(' ')}\n`;
    lines.push(text.length);
  }
  return { bytes: Buffer.from(text, 'latin1'), lines: Uint32Array.from(lines) };
}

/**
 * A seeded random number generator: one seed gives the same sample on every machine. Not for
 * secrets.
 */
export interface Prng {
  /** 32 random bits. */
  next(): number;
  /** A number in [0, 1). */
  unit(): number;
  /** A whole number in [0, limit). */
  below(limit: number): number;
}

/** sfc32 (Chris Doty-Humphrey, PractRand). */
export function createPrng(seed: number, stream: number): Prng {
  let a = seed | 0;
  let b = stream | 0;
  let c = 0x9e3779b9 | 0;
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  // After a dozen rounds, similar seeds give unrelated numbers.
  for (let round = 0; round < 12; round += 1) next();
  const unit = () => next() / 2 ** 32;
  return { next, unit, below: (limit) => Math.floor(unit() * limit) };
}

/** Returns a pronounceable word of 2 to 9 letters. */
export function randomWord(prng: Prng): string {
  let text = '';
  for (let left = 1 + prng.below(3); left > 0; left -= 1) {
    text += 'bcdfghklmnprstvwz'[prng.below(17)]! + 'aeiou'[prng.below(5)]!;
    if (prng.below(3) === 0) text += 'nrstl'[prng.below(5)]!;
  }
  return text;
}
