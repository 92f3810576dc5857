/** Strings are joined to bytes at this size: the table of a large layer would be millions of strings. */
const PIECE_CHARS = 2 ** 20;

/** A long text built from many short ones. */
export class TextSpool {
  readonly #pieces: Buffer[] = [];
  #text = '';

  add(text: string): void {
    this.#text += text;
    if (this.#text.length >= PIECE_CHARS) this.#flush();
  }

  /** The whole text as UTF-8. */
  toBuffer(): Buffer {
    this.#flush();
    return Buffer.concat(this.#pieces);
  }

  #flush(): void {
    this.#pieces.push(Buffer.from(this.#text));
    this.#text = '';
  }
}
