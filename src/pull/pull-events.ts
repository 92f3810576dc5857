import { guardListener, shorten } from '../format/error.js';
import { CounterReader } from '../pool/shared-memory.js';
import { LayerBoard, type LayerProgress } from './layer-progress.js';

/** Events of a pull or copy, for a display. Sizes are in bytes. */
export type PullEvent =
  | { readonly event: 'resolving'; readonly image: string }
  /** The manifest is known: `totalBytes` is the sum of the layer blobs. */
  | {
      readonly event: 'resolved';
      readonly image: string;
      readonly digest: string;
      /** The digest of the index that names the manifest, if there is one. */
      readonly indexDigest?: string;
      readonly platform: string;
      readonly layers: number;
      readonly totalBytes: number;
    }
  /**
   * Exact totals, before the first content byte. `totalBytes`: blob bytes that this pull receives.
   */
  | {
      readonly event: 'planned';
      readonly totalBytes: number;
      readonly fetchBytes: number;
      readonly reuseBytes: number;
      readonly resumeBytes: number;
      readonly requests: number;
    }
  /**
   * About ten times a second. `receivedBytes` counts body bytes of blobs, out of the `totalBytes`
   * known by then. Before `resolved`, only while nothing is received.
   */
  | {
      readonly event: 'progress';
      readonly receivedBytes: number;
      readonly totalBytes: number;
      readonly writtenBytes: number;
      readonly verifiedBytes: number;
      /** How long nothing has been received although requests are in flight, from 1000 on. */
      readonly silentMs?: number;
      /** After which silence the pull is expected to give up. Comes with `silentMs`. */
      readonly givesUpMs?: number;
    }
  /**
   * The layers that changed, ten times a second at most; the first one has all layers, lowest
   * first.
   */
  | { readonly event: 'layers'; readonly layers: readonly LayerProgress[] }
  /**
   * A layer is verified and in the store; in a copy, the blob of a layer is verified, and `diffId`
   * its digest.
   */
  | { readonly event: 'layer'; readonly diffId: string; readonly done: number; readonly of: number }
  /**
   * A server asks to wait; emitted once for all requests that it asks at the same time. `reason`:
   * its own words.
   */
  | {
      readonly event: 'waiting';
      readonly host: string;
      readonly waitMs: number;
      readonly reason?: string;
    }
  /**
   * All remaining layers are being pulled by other processes; or another copy into the same layout
   * comes first.
   */
  | { readonly event: 'waiting-for-layers'; readonly layers: number }
  | { readonly event: 'miss'; readonly message: string }
  | { readonly event: 'warning'; readonly message: string }
  /** A line for --debug. */
  | { readonly event: 'debug'; readonly line: string };

/** The part of a `progress` event about silence. */
export type Silence = Required<Pick<PullEvent & { event: 'progress' }, 'silentMs' | 'givesUpMs'>>;

/** Where and when an event happened. */
export interface EventOrigin {
  /** The full reference of the image. */
  readonly image: string;
  /** Milliseconds since 1970. */
  readonly timeMs: number;
}

/** Warnings of one kind that are emitted. A single span that keeps arriving wrong causes eight. */
const MAX_WARNINGS_OF_A_KIND = 8;

/**
 * Kinds of warnings that are emitted: there are some dozen, but text from outside can make each
 * warning a new kind.
 */
const MAX_KINDS = 30;

/** Enough for a sentence with two digests and a path. */
const MAX_WARNING_LENGTH = 1000;

/** Emits warnings, only some of each kind: an image of 999 layers can cause as many. */
export class Warnings {
  readonly #emit: (message: string) => void;
  /** The number of warnings of each kind, and the first of them. */
  readonly #kinds = new Map<string, { readonly first: string; count: number }>();
  /** Warnings of kinds beyond MAX_KINDS. */
  #others = 0;

  constructor(emit: (message: string) => void) {
    this.#emit = emit;
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
    if (count < MAX_WARNINGS_OF_A_KIND) this.#emit(message);
  }

  /** Emits the numbers of suppressed warnings. The last call. */
  end(): void {
    for (const { first, count } of this.#kinds.values()) {
      if (count > MAX_WARNINGS_OF_A_KIND)
        this.#emit(`${more(count - MAX_WARNINGS_OF_A_KIND)} like this: ${first}`);
    }
    if (this.#others > 0) this.#emit(`${more(this.#others)} of other kinds`);
    this.#kinds.clear();
    this.#others = 0;
  }
}

function more(count: number): string {
  return `${count.toLocaleString('en-US')} more ${count === 1 ? 'warning' : 'warnings'}`;
}

/** The text without digests and numbers, which warnings about different layers share. */
function kindOf(message: string): string {
  return message.replaceAll(/sha256:[0-9a-f]+|\d+/g, '#');
}

/** Ten times a second is enough for the eye. */
const TICK_MS = 100;

/**
 * Passes events on, except warnings beyond some of each kind, and emits progress from the shared
 * counters. Calls `failed` with an error of `onEvent`, which gets no event after that. Without
 * `onEvent` nothing is counted or compared.
 */
export class Progress {
  readonly emit: (event: PullEvent) => void;
  readonly layers = new LayerBoard();
  readonly #received: CounterReader;
  readonly #written: CounterReader;
  readonly #verified: CounterReader;
  readonly #warnings: Warnings;
  #timer: NodeJS.Timeout | undefined;
  readonly #silence: () => Silence | undefined;
  #totalBytes = 0;
  #isResolved = false;
  /** Whether there is a plan already: layers that are pulled later have one of their own. */
  #isPlanned = false;

  constructor(
    counters: Uint32Array,
    onEvent: ((event: PullEvent) => void) | undefined,
    failed: (error: Error) => void,
    silence: () => Silence | undefined,
  ) {
    this.#silence = silence;
    this.#received = new CounterReader(counters, 'received');
    this.#written = new CounterReader(counters, 'written');
    this.#verified = new CounterReader(counters, 'verified');
    const send = guardListener(onEvent, failed);
    this.#warnings = new Warnings((message) => send({ event: 'warning', message }));
    this.emit = (event) => {
      if (event.event === 'warning') {
        this.#warnings.add(event.message);
        return;
      }
      if (event.event === 'resolved') {
        this.#totalBytes = event.totalBytes;
        this.#isResolved = true;
      }
      if (event.event === 'layer') this.layers.done(event.diffId);
      if (event.event === 'planned') {
        this.#totalBytes = this.#isPlanned ? this.#totalBytes + event.totalBytes : event.totalBytes;
        this.#isPlanned = true;
      }
      send(event);
      if (event.event === 'resolving' && onEvent !== undefined) {
        this.#timer ??= setInterval(() => this.#tick(send), TICK_MS).unref();
      }
    };
  }

  /** Adds to the total of a layer to receive, by its DiffID; negative to subtract. */
  addTotal(bytes: number, diffId: string): void {
    this.#totalBytes += bytes;
    this.layers.addTotal(diffId, bytes);
  }

  /** Emits the final progress. The last call. */
  close(): void {
    this.#warnings.end();
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (this.#isResolved) this.#tick(this.emit);
  }

  #tick(send: (event: PullEvent) => void): void {
    const layers = this.layers.changes();
    if (layers.length > 0) send({ event: 'layers', layers });
    const silence = this.#silence();
    if (this.#isResolved || silence !== undefined) send(this.#state(silence));
  }

  #state(silence: Silence | undefined): PullEvent {
    return {
      event: 'progress',
      receivedBytes: this.#received.total(),
      totalBytes: this.#totalBytes,
      writtenBytes: this.#written.total(),
      verifiedBytes: this.#verified.total(),
      ...silence,
    };
  }
}
