import fc from 'fast-check';

/** What costs more than it should for each byte shows with so many; more would leave no time for other inputs. */
const MAX_INPUT_BYTES = 64 * 1024;

/** Changes bytes; a place beyond their end is counted from the beginning again. */
type Edit = (bytes: Buffer) => Buffer;

/** Numbers at which something ends: signs, bits of a word, integers of a double, powers of ten that text may have. */
export const EDGE_NUMBERS: readonly string[] = [
  '0',
  '-0',
  '-1',
  '1',
  '00',
  '255',
  '65536',
  '2147483648',
  '4294967295',
  '4294967296',
  '17592186044416',
  '9007199254740991',
  '9007199254740992',
  '9223372036854775807',
  '18446744073709551615',
  '99999999999999999999',
  '0.5',
  '1e3',
  '1e308',
  '1e999',
];

const EDGE_INTEGERS: readonly bigint[] = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  2n ** 44n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** What many formats give a meaning to. */
const COMMON_WORDS: readonly string[] = [
  '\0',
  '\n',
  '"',
  '\\',
  ',',
  ':',
  '/',
  '..',
  '=',
  ' ',
  '\u{2028}',
  '[',
  '{',
  '%',
];

const place = fc.nat(2 ** 20);

/** Bytes that are near to one of `seeds`, and some that are near to nothing. `words`: what the format gives a meaning to. */
export function mutated(
  seeds: readonly (Uint8Array | string)[],
  words: readonly string[] = [],
): fc.Arbitrary<Buffer> {
  const buffers = seeds.map((seed) => Buffer.from(seed as string));
  const near = fc
    .tuple(
      fc.constantFrom(...buffers),
      fc.array(edit(buffers, [...COMMON_WORDS, ...words]), { maxLength: 8 }),
    )
    .map(([seed, edits]) => apply(seed, edits));
  const far = fc.uint8Array({ maxLength: 2048 }).map((bytes) => Buffer.from(bytes));
  return fc.oneof({ arbitrary: near, weight: 15 }, { arbitrary: far, weight: 1 });
}

/** As `mutated`, as text: of UTF-8 what is none becomes U+FFFD, of latin1 nothing is lost. */
export function mutatedText(seeds: readonly string[], words: readonly string[] = []): fc.Arbitrary<string> {
  return fc.oneof(
    { arbitrary: mutated(seeds, words).map((bytes) => bytes.toString('utf8')), weight: 6 },
    { arbitrary: mutated(seeds, words).map((bytes) => bytes.toString('latin1')), weight: 2 },
    { arbitrary: fc.string({ unit: 'binary' }), weight: 1 },
  );
}

function apply(seed: Buffer, edits: readonly Edit[]): Buffer {
  let bytes = seed;
  for (const change of edits) bytes = change(bytes).subarray(0, MAX_INPUT_BYTES);
  return Buffer.from(bytes);
}

function edit(seeds: readonly Buffer[], words: readonly string[]): fc.Arbitrary<Edit> {
  const inserted = fc.oneof(
    fc.constantFrom(...words).map((word) => Buffer.from(word)),
    fc.constantFrom(...EDGE_NUMBERS).map((word) => Buffer.from(word)),
    fc.uint8Array({ maxLength: 16 }).map((bytes) => Buffer.from(bytes)),
  );
  const length = fc.oneof(fc.nat(16), fc.nat(1024));
  const times = fc.oneof({ arbitrary: fc.nat(4), weight: 9 }, { arbitrary: fc.nat(5000), weight: 1 });
  return fc.oneof(
    fc.tuple(place, fc.nat(255)).map(([at, byte]) => replace(at, 1, Buffer.of(byte))),
    fc.tuple(place, fc.nat(7)).map(([at, bit]) => flip(at, bit)),
    fc.tuple(place, length).map(([at, count]) => replace(at, count, Buffer.alloc(0))),
    fc.tuple(place, inserted).map(([at, bytes]) => replace(at, 0, bytes)),
    fc.tuple(place, inserted).map(([at, bytes]) => replace(at, bytes.length, bytes)),
    fc.tuple(place, fc.constantFrom(...EDGE_NUMBERS)).map(([at, text]) => replaceDigits(at, text)),
    fc
      .tuple(place, fc.constantFrom(...EDGE_INTEGERS), fc.constantFrom(4, 8), fc.boolean())
      .map(([at, value, size, isLittle]) => replace(at, size, integer(value, size, isLittle))),
    fc.tuple(place, length, times).map(([at, count, times]) => repeat(at, count, times)),
    fc.tuple(place, length, place).map(([from, count, to]) => move(from, count, to)),
    place.map((at) => (bytes: Buffer) => bytes.subarray(0, within(bytes, at))),
    fc.tuple(fc.constantFrom(...seeds), place, place).map(
      ([other, from, at]) =>
        (bytes: Buffer) =>
          Buffer.concat([bytes.subarray(0, within(bytes, at)), other.subarray(within(other, from))]),
    ),
  );
}

function within(bytes: Buffer, at: number): number {
  return at % (bytes.length + 1);
}

function replace(at: number, count: number, bytes: Buffer): Edit {
  return (before) => {
    const start = within(before, at);
    return Buffer.concat([before.subarray(0, start), bytes, before.subarray(start + count)]);
  };
}

function flip(at: number, bit: number): Edit {
  return (before) => {
    const bytes = Buffer.from(before);
    if (bytes.length > 0) bytes[at % bytes.length]! ^= 1 << bit;
    return bytes;
  };
}

/** Puts another number in the place of the one that stands at or behind `at`. */
function replaceDigits(at: number, text: string): Edit {
  return (before) => {
    const start = within(before, at);
    const rest = before.toString('latin1', start);
    return Buffer.concat([before.subarray(0, start), Buffer.from(rest.replace(/\d+/, text), 'latin1')]);
  };
}

function integer(value: bigint, size: number, isLittle: boolean): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  const low = bytes.subarray(0, size);
  return isLittle ? low : Buffer.from(low).reverse();
}

function repeat(at: number, count: number, times: number): Edit {
  return (before) => {
    const start = within(before, at);
    const part = before.subarray(start, start + count);
    const most = part.length === 0 ? 0 : Math.min(times, Math.floor(MAX_INPUT_BYTES / part.length));
    return Buffer.concat([
      before.subarray(0, start),
      ...Array<Buffer>(most).fill(part),
      before.subarray(start),
    ]);
  };
}

function move(from: number, count: number, to: number): Edit {
  return (before) => {
    const start = within(before, from);
    return replace(to, 0, before.subarray(start, start + count))(before);
  };
}
