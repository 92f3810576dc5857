/** Doubts by letters: those that differ in figures alone share one, with the largest figure. */
export class DoubtNotes {
  readonly #doubts = new Map<string, string>();

  /** The letters of these doubts. */
  mark(doubts: readonly string[]): string {
    return doubts
      .map((doubt) => this.#letterOf(doubt))
      .sort()
      .join('');
  }

  #letterOf(doubt: string): string {
    // An outlier is the run that it names.
    const kind = /\brun \d/.test(doubt) ? doubt : doubt.replace(/\d+/g, '#');
    const known = this.#doubts.get(kind);
    if (known === undefined || figureOf(doubt) > figureOf(known)) this.#doubts.set(kind, doubt);
    return letter([...this.#doubts.keys()].indexOf(kind));
  }

  /** Each doubt that was marked, with its letter: `a) the runs lie 12 % apart`. */
  get lines(): string[] {
    return [...this.#doubts.values()].map((doubt, i) => `${letter(i)}) ${doubt}`);
  }
}

function figureOf(text: string): number {
  return Number(/\d+/.exec(text)?.[0] ?? 0);
}

function letter(index: number): string {
  return index < 26 ? String.fromCharCode(97 + index) : '*';
}
