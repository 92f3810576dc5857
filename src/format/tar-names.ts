/** A block of a tar (POSIX.1-2017, pax, "ustar Interchange Format"). */
const BLOCK_BYTES = 512;

/** The largest extended header or long name that is read; no path needs more. */
const MAX_META_BYTES = 2 ** 20;

/** Types that have no content, whatever their size field says. */
const HEADER_ONLY = '123456';

/** An entry of a tar: its headers begin at `start`, its last padding ends before `end`. */
interface TarSpan {
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/**
 * The entries of a tar with what belongs to each, in order. Names are for messages: what is no UTF-8 is replaced. Ends
 * without an error at the end of the archive, and where no sound header stands: a tar that is damaged may have any there.
 * @param read gives the bytes [start, start + length) of the tar, or undefined where they are gone
 */
export function* tarSpans(
  read: (start: number, lengthBytes: number) => Buffer | undefined,
  tarBytes: number,
): Generator<TarSpan, void, undefined> {
  let start = 0;
  let long: string | undefined;
  for (let at = 0; at + BLOCK_BYTES <= tarBytes; ) {
    const header = read(at, BLOCK_BYTES);
    if (header === undefined || !hasSum(header)) return;
    const type = String.fromCharCode(header[156]!);
    const sizeBytes = HEADER_ONLY.includes(type) ? 0 : numberOf(header.subarray(124, 136));
    const end = at + BLOCK_BYTES + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    if (!(end <= tarBytes)) return;
    if (type === 'x' || type === 'L') {
      const meta = sizeBytes <= MAX_META_BYTES ? read(at + BLOCK_BYTES, sizeBytes) : undefined;
      if (meta === undefined) return;
      long = (type === 'L' ? textOf(meta) : paxPath(meta)) ?? long;
    } else if (type !== 'K' && type !== 'g') {
      yield { path: long ?? nameOf(header), start, end };
      start = end;
      long = undefined;
    }
    at = end;
  }
}

/** Whether a block is a header: the sum of its bytes is what it states, with eight spaces in its place. */
function hasSum(header: Buffer): boolean {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK_BYTES; i++) if (i < 148 || i >= 156) sum += header[i]!;
  return sum === numberOf(header.subarray(148, 156));
}

/** Octal digits, or a big-endian number after a first byte of 0x80 (GNU); NaN for anything else. */
function numberOf(field: Buffer): number {
  if (field[0] === 0x80) return Number(BigInt(`0x${field.toString('hex', 1)}`));
  const text = field
    .toString('latin1')
    .replace(/[\0 ]+$/, '')
    .trimStart();
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || '0', 8) : Number.NaN;
}

function nameOf(header: Buffer): string {
  const name = textOf(header.subarray(0, 100));
  // Old GNU headers have other things where ustar has the prefix.
  const prefix = header.toString('latin1', 257, 263) === 'ustar\0' ? textOf(header.subarray(345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

/** The path that an extended header states: records of `LENGTH KEY=VALUE\n`. */
function paxPath(meta: Buffer): string | undefined {
  let path: string | undefined;
  for (let at = 0; at < meta.length; ) {
    const [head = '', digits = ''] = /^(\d{1,7}) /.exec(meta.toString('latin1', at, at + 8)) ?? [];
    const end = at + Number(digits);
    if (head === '' || end <= at + head.length || end > meta.length) return path;
    const record = meta.toString('utf8', at + head.length, end - 1);
    if (record.startsWith('path=')) path = record.slice('path='.length);
    at = end;
  }
  return path;
}
