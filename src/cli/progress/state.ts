import { formatBytes, formatCount } from '../../api/figures.js';
import type { LayerProgress } from '../../api/pull.js';
import type { ShownEvent } from './renderer.js';

/** What a display shows of a pull, a copy or an export. Times are those of the display's clock. */
export interface ProgressState {
  /** The image, or the destination of an export. */
  readonly image: string;
  readonly platform: string;
  /** Received by a pull or written by an export. */
  readonly receivedBytes: number;
  readonly totalBytes: number;
  /** Until the plan is made the total is an upper bound. */
  readonly exact: boolean;
  /** The layers as their descriptors are listed, by DiffID, in a copy by digest. */
  readonly layers: ReadonlyMap<string, LayerProgress>;
  /** The current step, as the user reads it. */
  readonly step: string;
  readonly firstByteMs: number | undefined;
  readonly lastByteMs: number;
  /** Nothing is received since then, and until when the pull waits at most. */
  readonly silence: { readonly fromMs: number; readonly givesUpMs: number } | undefined;
  /** A server asks to wait. */
  readonly wait: { readonly host: string; readonly reason?: string; readonly untilMs: number } | undefined;
  /** The last network failure, until bytes come again. */
  readonly failure: string | undefined;
  /** Since when this process waits for others. */
  readonly sharedFromMs: number | undefined;
}

export const INITIAL_STATE: ProgressState = {
  image: '',
  platform: '',
  receivedBytes: 0,
  totalBytes: 0,
  exact: false,
  layers: new Map(),
  step: 'starting',
  firstByteMs: undefined,
  lastByteMs: 0,
  silence: undefined,
  wait: undefined,
  failure: undefined,
  sharedFromMs: undefined,
};

/** The state after an event at `nowMs`. */
export function advance(state: ProgressState, event: ShownEvent, nowMs: number): ProgressState {
  switch (event.event) {
    case 'resolving':
      return { ...INITIAL_STATE, image: event.image, step: 'resolving' };
    case 'resolved': {
      // A copy can be of all platforms, or of an image that states none.
      const { platform: text, totalBytes } = event;
      const platform = /^\S+\/\S+$/.test(text) ? text : '';
      const step = `reading metadata of ${formatCount(event.layers, 'layer')}, ${formatBytes(totalBytes)} at most`;
      return { ...state, platform, totalBytes, step, silence: undefined };
    }
    case 'planned':
      return {
        ...state,
        totalBytes: event.totalBytes,
        exact: true,
        step: 'fetching',
        sharedFromMs: undefined,
      };
    case 'progress': {
      const { receivedBytes, totalBytes, silentMs, givesUpMs = 0 } = event;
      const silence =
        silentMs === undefined
          ? undefined
          : { fromMs: nowMs - silentMs, givesUpMs: nowMs - silentMs + givesUpMs };
      return received({ ...state, totalBytes, silence }, receivedBytes, nowMs);
    }
    case 'layers': {
      const layers = new Map(state.layers);
      for (const layer of event.layers) layers.set(layer.diffId ?? layer.digest, layer);
      return { ...state, layers };
    }
    case 'waiting-for-layers':
      return { ...state, sharedFromMs: state.sharedFromMs ?? nowMs };
    case 'miss':
      return { ...state, failure: event.message };
    case 'waiting': {
      const { host, reason, waitMs } = event;
      return { ...state, wait: { host, ...(reason && { reason }), untilMs: nowMs + waitMs } };
    }
    case 'exporting': {
      const { destination: image, totalBytes } = event;
      return { ...INITIAL_STATE, image, totalBytes, exact: true, step: 'writing' };
    }
    case 'written': {
      const { writtenBytes, totalBytes } = event;
      const step = writtenBytes >= totalBytes ? 'verifying' : 'writing';
      return received({ ...state, totalBytes, step }, writtenBytes, nowMs);
    }
    case 'layer':
    case 'warning':
    case 'debug':
      return state;
  }
}

/** The state with so many bytes; new ones end what was told of waits and failures. */
function received(state: ProgressState, receivedBytes: number, nowMs: number): ProgressState {
  if (receivedBytes <= state.receivedBytes) return { ...state, receivedBytes };
  const firstByteMs = state.firstByteMs ?? nowMs;
  const told = { wait: undefined, failure: undefined, sharedFromMs: undefined };
  return { ...state, ...told, receivedBytes, firstByteMs, lastByteMs: nowMs };
}

/** A shorter measurement says little about the rest. */
const MIN_MEASURED_MS = 2000;
/** After a longer pause the rate of before says nothing. */
const MAX_PAUSE_MS = 3000;

/** Whether nothing has come for so long that a rate would mislead. */
export function isPaused({ lastByteMs }: ProgressState, nowMs: number): boolean {
  return nowMs - lastByteMs > MAX_PAUSE_MS;
}

/** Less rounds to nothing. */
const MIN_LEFT_SECONDS = 0.5;

/** Seconds left, or undefined when that cannot be told or is not worth telling. */
export function secondsLeft(state: ProgressState, bytesPerSecond: number, nowMs: number): number | undefined {
  const { exact, totalBytes, receivedBytes, firstByteMs } = state;
  const leftBytes = totalBytes - receivedBytes;
  if (!exact || leftBytes <= 0 || bytesPerSecond <= 0 || firstByteMs === undefined) return undefined;
  if (nowMs - firstByteMs < MIN_MEASURED_MS || isPaused(state, nowMs)) return undefined;
  const left = leftBytes / bytesPerSecond;
  return left < MIN_LEFT_SECONDS ? undefined : left;
}

/** Shorter pauses are usual. */
const MIN_TOLD_SILENCE_MS = 3000;

/**
 * Says what the pull waits for, since when and until when, in several lengths, the longest first. Empty while
 * bytes come.
 */
export function waits(state: ProgressState, nowMs: number): ReadonlyArray<readonly [string, ...string[]]> {
  const { wait, silence, failure, sharedFromMs } = state;
  const lines: Array<readonly [string, ...string[]]> = [];
  if (wait !== undefined && wait.untilMs > nowMs) {
    const again = `retrying in ${seconds(wait.untilMs - nowMs)}`;
    const asks = `${wait.host} asks to wait`;
    const short = [`${asks}; ${again}`, again] as const;
    lines.push(wait.reason === undefined ? short : [`${asks} and says ${wait.reason}; ${again}`, ...short]);
  } else if (silence !== undefined && nowMs - silence.fromMs >= MIN_TOLD_SILENCE_MS) {
    const since = `nothing received for ${seconds(nowMs - silence.fromMs)}`;
    const until = `${since}; giving up at ${seconds(silence.givesUpMs - silence.fromMs)}`;
    lines.push([`${until}, --patience`, until, since]);
  }
  if (failure !== undefined) lines.push([`retrying: ${failure}`]);
  if (sharedFromMs !== undefined) {
    const passed = seconds(nowMs - sharedFromMs);
    lines.push([`waiting for another process for ${passed}`, 'waiting for another process']);
  }
  return lines;
}

function seconds(ms: number): string {
  return `${Math.max(0, Math.round(ms / 1000))} s`;
}

/** The current step, with the layers that are finished where it is known which there are. */
export function stepOf(state: ProgressState): string {
  const { layers, step, exact, receivedBytes, totalBytes, sharedFromMs } = state;
  if (layers.size === 0 || !(exact || sharedFromMs !== undefined)) return step;
  const againBytes = receivedBytes - totalBytes;
  const all = [...layers.values()];
  const finished = all.filter(({ state }) => state === 'done' || state === 'reused').length;
  const count = `${finished}/${formatCount(layers.size, 'layer')}`;
  if (againBytes > 0) return `${count}, ${formatBytes(againBytes)} fetched again`;
  const isVerifying = againBytes === 0 && finished < layers.size && step === 'fetching';
  return isVerifying && sharedFromMs === undefined ? `verifying ${count}` : count;
}

/** Time constant of the weights; with a shorter one the estimate of the time left jumps. */
const TAU_MS = 3000;

/**
 * Bytes a second, smoothed with exponential weights over uneven steps, and divided by the sum of
 * the weights so far: else the first seconds would show a share of the rate.
 */
export class RateMeter {
  #bytes: number;
  #now: number;
  #weighted = 0;
  #weights = 0;

  constructor(bytes: number, now: number) {
    this.#bytes = bytes;
    this.#now = now;
  }

  /** Records that there are `bytes` bytes at `now` (milliseconds). */
  update(bytes: number, now: number): void {
    const passedMs = now - this.#now;
    if (passedMs <= 0) return;
    const fade = Math.exp(-passedMs / TAU_MS);
    const rate = (Math.max(0, bytes - this.#bytes) / passedMs) * 1000;
    this.#weighted = this.#weighted * fade + rate * (1 - fade);
    this.#weights = this.#weights * fade + (1 - fade);
    this.#bytes = bytes;
    this.#now = now;
  }

  /** 0 before the first update. */
  get bytesPerSecond(): number {
    return this.#weights === 0 ? 0 : this.#weighted / this.#weights;
  }
}

/** A state and its rate, which follow the events. */
export class ProgressTracker {
  state = INITIAL_STATE;
  #meter: RateMeter;
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
    this.#meter = new RateMeter(0, now());
  }

  get bytesPerSecond(): number {
    return this.#meter.bytesPerSecond;
  }

  add(event: ShownEvent): void {
    const now = this.#now();
    this.state = advance(this.state, event, now);
    const { receivedBytes } = this.state;
    if (event.event === 'resolving' || event.event === 'planned' || event.event === 'exporting')
      this.#meter = new RateMeter(receivedBytes, now);
    if (event.event === 'progress' || event.event === 'written') this.#meter.update(receivedBytes, now);
  }
}
