import { formatBytes, formatCount } from '../format-text.js';
import type { ShownEvent } from './create-renderer.js';

/** What a display knows of a pull or an export. Sizes in bytes. */
export interface ProgressState {
  /** The image; of an export its destination. */
  readonly image: string;
  /** Received by a pull, written by an export. */
  readonly receivedBytes: number;
  readonly totalBytes: number;
  /** Before the plan is made the total is an upper bound. */
  readonly exact: boolean;
  readonly layersDone: number;
  readonly layers: number;
  /** What is being done, in a few words. */
  readonly message: string;
}

export const INITIAL_STATE: ProgressState = {
  image: '',
  receivedBytes: 0,
  totalBytes: 0,
  exact: false,
  layersDone: 0,
  layers: 0,
  message: 'starting',
};

/** The state after an event. Pure. */
export function advance(state: ProgressState, event: ShownEvent): ProgressState {
  switch (event.event) {
    case 'resolving':
      return { ...INITIAL_STATE, image: event.image, message: 'resolving' };
    case 'resolved': {
      const { layers, totalBytes } = event;
      return { ...state, layers, totalBytes, message: 'reading metadata' };
    }
    case 'planned':
      return withMessage({ ...state, totalBytes: event.totalBytes, exact: true });
    case 'progress': {
      const { receivedBytes, totalBytes } = event;
      const next = { ...state, receivedBytes, totalBytes };
      // A retry is told of until bytes come again.
      return receivedBytes === state.receivedBytes ? next : withMessage(next);
    }
    case 'layer':
      return withMessage({ ...state, layersDone: event.done, layers: event.of });
    case 'waiting-for-layers':
      return { ...state, message: 'waiting for another process' };
    case 'miss':
      return { ...state, message: `retrying: ${event.message}` };
    case 'waiting':
      return { ...state, message: `waiting as ${event.host} asks` };
    case 'exporting': {
      const { destination, totalBytes } = event;
      return { ...INITIAL_STATE, image: destination, totalBytes, exact: true, message: 'writing' };
    }
    case 'written': {
      const { writtenBytes, totalBytes } = event;
      const message = writtenBytes >= totalBytes ? 'verifying' : 'writing';
      return { ...state, receivedBytes: writtenBytes, totalBytes, message };
    }
    case 'warning':
    case 'debug':
      return state;
  }
}

/** Layers done, and verifying once every byte is there. */
function withMessage(state: ProgressState): ProgressState {
  if (!state.exact) return state;
  const verifying = state.receivedBytes >= state.totalBytes;
  const layers = `${state.layersDone}/${formatCount(state.layers, 'layer')}`;
  const againBytes = state.receivedBytes - state.totalBytes;
  if (againBytes > 0) return { ...state, message: `${layers}, ${formatBytes(againBytes)} fetched again` };
  return { ...state, message: verifying ? `verifying ${layers}` : layers };
}

/** Weight of the past: what is older than three of these hardly counts. Shorter, and the time left jumps about. */
const TAU_MS = 3000;

/**
 * Bytes a second, smoothed with exponential weights over uneven steps. Divided by the sum of the weights so far, so
 * that the first second shows its rate and not a share of it. Time is passed in.
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

  /** Takes note of how many bytes there are by `now` (milliseconds). */
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

  /** 0 until something was noted. */
  get bytesPerSecond(): number {
    return this.#weights === 0 ? 0 : this.#weighted / this.#weights;
  }
}
