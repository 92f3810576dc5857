import { shorten } from '../format/text.js';

/** Warnings of one kind that are told. One span that comes wrong again and again makes eight. */
const MAX_WARNINGS_OF_A_KIND = 8;

/** Kinds of warnings that are told: there are some dozen, but a text that someone else wrote can make each warning another. */
const MAX_KINDS = 30;

/** A sentence with two digests and a path. */
const MAX_WARNING_LENGTH = 1000;

/** Tells warnings as they come, only some of each kind: an image of 999 layers can make as many of them. */
export class Warnings {
  readonly #tell: (message: string) => void;
  /** How many of each kind there were, and the first of them. */
  readonly #kinds = new Map<string, { readonly first: string; count: number }>();
  /** Warnings of other kinds than the first. */
  #others = 0;

  constructor(tell: (message: string) => void) {
    this.#tell = tell;
  }

  add(warning: string): void {
    const message = shorten(warning, MAX_WARNING_LENGTH);
    const kind = kindOf(message);
    const known = this.#kinds.get(kind);
    if (known === undefined && this.#kinds.size === MAX_KINDS) {
      this.#others += 1;
      return;
    }
    const { count } = known ?? { count: 0 };
    this.#kinds.set(kind, { first: known?.first ?? message, count: count + 1 });
    if (count < MAX_WARNINGS_OF_A_KIND) this.#tell(message);
  }

  /** Tells how many were not told; no more are added. */
  end(): void {
    for (const { first, count } of this.#kinds.values()) {
      if (count > MAX_WARNINGS_OF_A_KIND)
        this.#tell(`${more(count - MAX_WARNINGS_OF_A_KIND)} like this: ${first}`);
    }
    if (this.#others > 0) this.#tell(`${more(this.#others)} of other kinds`);
    this.#kinds.clear();
    this.#others = 0;
  }
}

function more(count: number): string {
  return `${count.toLocaleString('en-US')} more ${count === 1 ? 'warning' : 'warnings'}`;
}

/** What warnings about different layers have in common: all but digests and numbers. */
function kindOf(message: string): string {
  return message.replaceAll(/sha256:[0-9a-f]+|\d+/g, '#');
}
