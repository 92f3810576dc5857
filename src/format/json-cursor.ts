import { PullError } from './error.js';

/** Deeper nesting is refused: TOC entries nest three levels; `skipValue` recurses. */
const MAX_DEPTH = 64;

/** The longest word, `tarSplitDigest`, has 14 letters, and an escape six bytes. */
const MAX_WORD_BYTES = 6 * 16;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const LOWER_U = 0x75;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Words to look up among keys or values, by length so that few bytes are compared. */
export interface WordSet {
  readonly words: readonly string[];
  readonly byLength: readonly (readonly { readonly bytes: Uint8Array; readonly word: number }[])[];
}

/** Returns a set of ASCII words, separated by blanks; `match` returns indexes into this list. */
export function wordSet(text: string): WordSet {
  const words = text.split(' ');
  const byLength: { bytes: Uint8Array; word: number }[][] = [];
  for (const [word, { length }] of words.entries()) {
    while (byLength.length <= length) byLength.push([]);
    byLength[length]!.push({ bytes: Buffer.from(words[word]!, 'latin1'), word });
  }
  return { words, byLength };
}

/**
 * Reads a JSON document (RFC 8259) in place: strings are slices, numbers are integers, nothing is
 * allocated. JSON.parse of a 40 MB TOC makes 120,000 objects; this makes none, and no key of the
 * document becomes a property. The caller requests what it expects next; anything else is
 * `metadata-malformed` with the byte offset.
 */
export class JsonCursor {
  readonly bytes: Buffer;
  readonly what: string;
  offset = 0;
  /** Range of the string read last, without its quotes. */
  stringStart = 0;
  stringEnd = 0;
  /** Whether that string has a backslash, so that its bytes are not its text. */
  escaped = false;
  #nextBackslash = -1;

  /** Creates a cursor at the start of `bytes`; `what` names the document in errors. */
  constructor(bytes: Buffer, what: string) {
    this.bytes = bytes;
    this.what = what;
  }

  /** Returns a `metadata-malformed` error at this offset. */
  malformed(expected: string, offset = this.offset): PullError {
    const found = offset < this.bytes.length ? '' : ', but it ends there';
    return new PullError(
      'metadata-malformed',
      `${this.what} is malformed at byte ${offset}: expected ${expected}${found}`,
    );
  }

  /** Returns the next byte that is not white space, not consumed; -1 at the end. */
  peek(): number {
    const { bytes } = this;
    let { offset } = this;
    while (offset < bytes.length) {
      const byte = bytes[offset]!;
      if (byte > 0x20 || (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09)) {
        this.offset = offset;
        return byte;
      }
      offset++;
    }
    this.offset = offset;
    return -1;
  }

  /** Enters an object. Returns whether it has a member: its key was read, its value is next. */
  firstMember(): boolean {
    if (this.peek() !== OPEN_BRACE) throw this.malformed('an object');
    this.offset++;
    if (this.peek() !== CLOSE_BRACE) {
      this.#key();
      return true;
    }
    this.offset++;
    return false;
  }

  /** After a member's value: returns whether another follows. Leaves the object if not. */
  nextMember(): boolean {
    const byte = this.peek();
    if (byte !== COMMA && byte !== CLOSE_BRACE) throw this.malformed('a comma or the end of the object');
    this.offset++;
    if (byte === CLOSE_BRACE) return false;
    this.#key();
    return true;
  }

  /** Enters an array. Returns whether it has an element, which comes next. */
  firstElement(): boolean {
    if (this.peek() !== OPEN_BRACKET) throw this.malformed('an array');
    this.offset++;
    if (this.peek() !== CLOSE_BRACKET) return true;
    this.offset++;
    return false;
  }

  /** After an element: returns whether another follows. Leaves the array if not. */
  nextElement(): boolean {
    const byte = this.peek();
    if (byte !== COMMA && byte !== CLOSE_BRACKET) throw this.malformed('a comma or the end of the array');
    this.offset++;
    return byte === COMMA;
  }

  #key(): void {
    this.readString();
    if (this.peek() !== COLON) throw this.malformed('a colon');
    this.offset++;
  }

  /** Consumes `null` if it comes next. Go's writers mean "absent" by it. */
  skipNull(): boolean {
    if (this.peek() !== 0x6e) return false;
    this.#literal('null');
    return true;
  }

  /** Reads a string into `stringStart`, `stringEnd` and `escaped`, and checks all of its syntax. */
  readString(): void {
    if (this.peek() !== QUOTE) throw this.malformed('a string');
    const { bytes } = this;
    const start = this.offset + 1;
    let at = start;
    let escaped = false;
    for (;;) {
      const byte = bytes[at];
      if (byte === QUOTE) break;
      if (byte === BACKSLASH) {
        escaped = true;
        at = this.#escape(at);
      } else if (byte !== undefined && byte >= 0x20) {
        at++;
      } else {
        throw this.malformed('the end of a string', at);
      }
    }
    this.stringStart = start;
    this.stringEnd = at;
    this.escaped = escaped;
    this.offset = at + 1;
  }

  /** Returns the offset after the escape sequence at `at`. */
  #escape(at: number): number {
    const letter = this.bytes[at + 1] ?? 0;
    if (letter !== 0x75) {
      if (letter === 0 || !'"\\/bfnrt'.includes(String.fromCharCode(letter))) {
        throw this.malformed('an escape sequence', at);
      }
      return at + 2;
    }
    for (let digit = at + 2; digit < at + 6; digit++) {
      const byte = this.bytes[digit] ?? 0;
      const lower = byte | 0x20;
      if (!((byte >= ZERO && byte <= NINE) || (lower >= 0x61 && lower <= 0x66))) {
        throw this.malformed('four hex digits', at);
      }
    }
    return at + 6;
  }

  /**
   * Reads a long string that needs no escapes (base64) with two searches instead of a loop: several
   * GB/s. Its characters are not checked, except that a backslash is an error.
   */
  readPlainString(): void {
    if (this.peek() !== QUOTE) throw this.malformed('a string');
    const start = this.offset + 1;
    const end = this.bytes.indexOf(QUOTE, start);
    if (end < 0) throw this.malformed('the end of a string', this.bytes.length);
    if (this.#nextBackslash < start) {
      const next = this.bytes.indexOf(BACKSLASH, start);
      this.#nextBackslash = next < 0 ? this.bytes.length : next;
    }
    if (this.#nextBackslash < end) throw this.malformed('a string without escapes', this.#nextBackslash);
    this.stringStart = start;
    this.stringEnd = end;
    this.escaped = false;
    this.offset = end + 1;
  }

  /** Returns the index in `set` of the string read last, -1 if it is not there. */
  match(set: WordSet): number {
    const { bytes, stringStart } = this;
    if (this.escaped) return this.#mayBeWord() ? set.words.indexOf(this.text()) : -1;
    const candidates = set.byLength[this.stringEnd - stringStart];
    if (candidates === undefined) return -1;
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i]!;
      const word = candidate.bytes;
      let at = 0;
      while (at < word.length && word[at] === bytes[stringStart + at]) at++;
      if (at === word.length) return candidate.word;
    }
    return -1;
  }

  /**
   * Whether the escaped string read last is short enough to be a word and has escaped letters only:
   * decoding each `"\\n"` of 400 MB would take eight times as long as everything else.
   */
  #mayBeWord(): boolean {
    const { bytes, stringStart, stringEnd } = this;
    if (stringEnd - stringStart > MAX_WORD_BYTES) return false;
    for (let at = bytes.indexOf(BACKSLASH, stringStart); at >= 0 && at < stringEnd; ) {
      if (bytes[at + 1] !== LOWER_U || bytes[at + 2] !== ZERO || bytes[at + 3] !== ZERO) return false;
      at = bytes.indexOf(BACKSLASH, at + 2);
    }
    return true;
  }

  /** Returns the text of the string read last. */
  text(): string {
    return jsonText(this.bytes, this.stringStart, this.stringEnd, this.escaped);
  }

  /** Reads an integer that JavaScript represents exactly; fractions and exponents are errors. */
  readInteger(): number {
    const negative = this.peek() === MINUS;
    const start = this.offset;
    const { bytes } = this;
    let at = negative ? start + 1 : start;
    const firstDigit = at;
    let value = 0;
    for (let byte = bytes[at]; byte !== undefined && byte >= ZERO && byte <= NINE; byte = bytes[at]) {
      value = value * 10 + (byte - ZERO);
      at++;
    }
    const next = (bytes[at] ?? 0) | 0x20;
    const leadingZero = bytes[firstDigit] === ZERO && at > firstDigit + 1;
    if (at === firstDigit || leadingZero || next === 0x65 || bytes[at] === 0x2e || value > 2 ** 53 - 1) {
      throw this.malformed('an integer', start);
    }
    this.offset = at;
    return negative && value > 0 ? -value : value;
  }

  /** Skips the next value of any kind, checking its syntax. */
  skipValue(depth = 0): void {
    if (depth > MAX_DEPTH) throw this.malformed(`at most ${MAX_DEPTH} nested values`);
    switch (this.peek()) {
      case QUOTE:
        this.readString();
        return;
      case OPEN_BRACE:
        for (let more = this.firstMember(); more; more = this.nextMember()) this.skipValue(depth + 1);
        return;
      case OPEN_BRACKET:
        for (let more = this.firstElement(); more; more = this.nextElement()) this.skipValue(depth + 1);
        return;
      case 0x74:
        this.#literal('true');
        return;
      case 0x66:
        this.#literal('false');
        return;
      case 0x6e:
        this.#literal('null');
        return;
      default:
        this.#skipNumber();
    }
  }

  #literal(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.offset + i] !== word.charCodeAt(i)) throw this.malformed(word);
    }
    this.offset += word.length;
  }

  #skipNumber(): void {
    const { bytes } = this;
    if (bytes[this.offset] === MINUS) this.offset++;
    if (bytes[this.offset] === ZERO) this.offset++;
    else this.#digits();
    if (bytes[this.offset] === 0x2e) {
      this.offset++;
      this.#digits();
    }
    if (((bytes[this.offset] ?? 0) | 0x20) === 0x65) {
      this.offset++;
      const sign = bytes[this.offset];
      if (sign === 0x2b || sign === MINUS) this.offset++;
      this.#digits();
    }
  }

  #digits(): void {
    const start = this.offset;
    for (let byte = this.bytes[start]; byte !== undefined && byte >= ZERO && byte <= NINE; ) {
      byte = this.bytes[++this.offset];
    }
    if (this.offset === start) throw this.malformed('a value');
  }

  /** Checks that only white space is left. */
  end(): void {
    if (this.peek() !== -1) throw this.malformed('the end of the document');
  }
}

/** Returns the text of a checked string. Bytes that are not UTF-8 become U+FFFD. */
export function jsonText(bytes: Buffer, start: number, end: number, escaped: boolean): string {
  const text = bytes.toString('utf8', start, end);
  return escaped ? String(JSON.parse(`"${text}"`)) : text;
}
