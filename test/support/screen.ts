const ESCAPE = String.fromCodePoint(27);
/** A control sequence whose escape was replaced, or a character. */
const PIECES = /␛\[\??([0-9;]*[A-Za-z])|[^␛]/gu;

/** A terminal of so many columns and rows, enough for what a redrawn block of lines writes. */
export class Screen {
  /** Every screen between two redraws that differs from the one before. */
  readonly frames: string[][] = [];
  #columns: number;
  #lines: string[] = [''];
  #row = 0;
  #column = 0;

  constructor(columns: number) {
    this.#columns = columns;
  }

  /** The lines that are written on, without blanks at their ends. */
  get lines(): string[] {
    const lines = this.#lines.map((line) => line.trimEnd());
    while (lines.at(-1) === '') lines.pop();
    return lines;
  }

  write(text: string): void {
    for (const [piece, sequence] of text.replaceAll(ESCAPE, '␛').matchAll(PIECES)) {
      if (sequence !== undefined) this.#obey(sequence);
      else if (piece === '\r') this.#column = 0;
      else if (piece === '\n') this.#feed();
      else this.#put(piece);
    }
  }

  /** Wraps lines that are too long now, as most terminals do. The cursor keeps its character. */
  resize(columns: number): void {
    this.#columns = columns;
    const before = this.#lines;
    const at = this.#row;
    this.#lines = [];
    for (const [row, line] of before.entries()) {
      const rows = Math.max(1, Math.ceil(line.trimEnd().length / columns));
      if (row === at) {
        this.#row = this.#lines.length + Math.min(rows - 1, Math.floor(this.#column / columns));
        this.#column %= columns;
      }
      for (let i = 0; i < rows; i++) this.#lines.push(line.slice(i * columns, (i + 1) * columns));
    }
  }

  #obey(sequence: string): void {
    const count = Number.parseInt(sequence, 10) || 0;
    const line = this.#lines[this.#row]!;
    switch (sequence.at(-1)) {
      case 'A':
        this.#row = Math.max(0, this.#row - Math.max(1, count));
        break;
      case 'G':
        this.#column = Math.max(1, count) - 1;
        break;
      case 'K':
        this.#lines[this.#row] = count === 0 ? line.slice(0, this.#column) : '';
        break;
      case 'J':
        this.#lines.length = this.#row + 1;
        this.#lines[this.#row] = line.slice(0, this.#column);
        break;
      case 'l':
        // The end of a synchronised update.
        if (count === 2026 && this.lines.join('\n') !== this.frames.at(-1)?.join('\n'))
          this.frames.push(this.lines);
        break;
    }
  }

  #feed(): void {
    this.#row += 1;
    this.#lines[this.#row] ??= '';
  }

  #put(character: string): void {
    if (this.#column === this.#columns) {
      this.#column = 0;
      this.#feed();
    }
    const line = this.#lines[this.#row]!.padEnd(this.#column);
    this.#lines[this.#row] = line.slice(0, this.#column) + character + line.slice(this.#column + 1);
    this.#column += 1;
  }
}
