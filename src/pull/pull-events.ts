import { guardListener } from '../format/listener.js';
import { shorten } from '../format/text.js';
import { CounterReader } from '../pool/counters.js';

/** What a pull tells while it runs. Advice for a display; the result is what counts. Sizes in bytes. */
export type PullEvent =
  | { readonly event: 'resolving'; readonly image: string }
  /** The manifest is known: `totalBytes` is the sum of the layer blobs. */
  | {
      readonly event: 'resolved';
      readonly image: string;
      readonly digest: string;
      /** The digest of the index that it was chosen from, when there was one. */
      readonly indexDigest?: string;
      readonly platform: string;
      readonly layers: number;
      readonly totalBytes: number;
    }
  /** All totals are exact from here on, before the first content byte. `totalBytes`: blob bytes this pull receives. */
  | {
      readonly event: 'planned';
      readonly totalBytes: number;
      readonly fetchBytes: number;
      readonly reuseBytes: number;
      readonly resumeBytes: number;
      readonly requests: number;
    }
  /** About ten times a second. `receivedBytes` counts body bytes of blobs, of `totalBytes` known by then. */
  | {
      readonly event: 'progress';
      readonly receivedBytes: number;
      readonly totalBytes: number;
      readonly writtenBytes: number;
      readonly verifiedBytes: number;
    }
  /** A layer is proven and in the store; of a copy, which decodes nothing, by the digest of its blob. */
  | { readonly event: 'layer'; readonly diffId: string; readonly done: number; readonly of: number }
  /** A server told us to wait; told once for all requests that it told at the same time. */
  | { readonly event: 'waiting'; readonly host: string; readonly waitMs: number }
  /** Only layers that other processes are pulling are left; of a copy, that another one into the same layout comes first. */
  | { readonly event: 'waiting-for-layers'; readonly layers: number }
  | { readonly event: 'miss'; readonly message: string }
  | { readonly event: 'warning'; readonly message: string }
  /** A line for --debug. */
  | { readonly event: 'debug'; readonly line: string };

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

/** Ten times a second: the eye sees no more. */
const TICK_MS = 100;

/**
 * Passes events on, of warnings only some of each kind, and makes the regular ones from the shared counters. `failed` is called with an error
 * of `onEvent`, which gets no event after that.
 */
export class Progress {
  readonly emit: (event: PullEvent) => void;
  readonly #received: CounterReader;
  readonly #written: CounterReader;
  readonly #verified: CounterReader;
  readonly #warnings: Warnings;
  #timer: NodeJS.Timeout | undefined;
  #totalBytes = 0;
  /** Layers that are pulled after others have a plan of their own. */
  #isPlanned = false;

  constructor(
    counters: Uint32Array,
    onEvent: ((event: PullEvent) => void) | undefined,
    failed: (error: Error) => void,
  ) {
    this.#received = new CounterReader(counters, 'received');
    this.#written = new CounterReader(counters, 'written');
    this.#verified = new CounterReader(counters, 'verified');
    const tell = guardListener(onEvent, failed);
    this.#warnings = new Warnings((message) => tell({ event: 'warning', message }));
    this.emit = (event) => {
      if (event.event === 'warning') {
        this.#warnings.add(event.message);
        return;
      }
      if (event.event === 'resolved') this.#totalBytes = event.totalBytes;
      if (event.event === 'planned') {
        this.#totalBytes = this.#isPlanned ? this.#totalBytes + event.totalBytes : event.totalBytes;
        this.#isPlanned = true;
      }
      tell(event);
      if (event.event === 'resolved' && onEvent !== undefined) {
        this.#timer = setInterval(() => tell(this.#state()), TICK_MS).unref();
      }
    };
  }

  /** So many more bytes are to be received than was planned; fewer when it is negative. */
  addTotal(bytes: number): void {
    this.#totalBytes += bytes;
  }

  /** The last state is told, then no more. */
  close(): void {
    this.#warnings.end();
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.emit(this.#state());
  }

  #state(): PullEvent {
    return {
      event: 'progress',
      receivedBytes: this.#received.total(),
      totalBytes: this.#totalBytes,
      writtenBytes: this.#written.total(),
      verifiedBytes: this.#verified.total(),
    };
  }
}
