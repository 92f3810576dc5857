/** A seeded source of numbers: the same seed gives the same sample on every machine. Not for secrets. */
export interface Prng {
  /** 32 random bits. */
  next(): number;
  /** A number in [0, 1). */
  unit(): number;
  /** A whole number in [0, limit). */
  below(limit: number): number;
}

/** sfc32 (Chris Doty-Humphrey, PractRand): passes the usual tests and is four lines. */
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
  // Close seeds give unrelated numbers after a dozen rounds.
  for (let round = 0; round < 12; round += 1) next();
  const unit = () => next() / 2 ** 32;
  return { next, unit, below: (limit) => Math.floor(unit() * limit) };
}

/** A pronounceable word of 2 to 9 letters. */
export function randomWord(prng: Prng): string {
  let text = '';
  for (let left = 1 + prng.below(3); left > 0; left -= 1) {
    text += 'bcdfghklmnprstvwz'[prng.below(17)]! + 'aeiou'[prng.below(5)]!;
    if (prng.below(3) === 0) text += 'nrstl'[prng.below(5)]!;
  }
  return text;
}
