import { formatBytes, formatCount } from '../format-text.js';
import type { ShownEvent } from './renderer.js';

/** What a display shows of a pull or an export. */
export interface ProgressState {
  /** The image, or the destination of an export. */
  readonly image: string;
  /** Received by a pull or written by an export. */
  readonly receivedBytes: number;
  readonly totalBytes: number;
  /** Until the plan is made the total is an upper bound. */
  readonly exact: boolean;
  readonly layersDone: number;
  readonly layers: number;
  /** The current step, as the user reads it. */
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

/** The state after an event. */
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
      // The message of a retry stays until bytes come again.
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

/**
 * The state with a message of how many layers are done, and `verifying` once every byte is
 * received.
 */
function withMessage(state: ProgressState): ProgressState {
  if (!state.exact) return state;
  const verifying = state.receivedBytes >= state.totalBytes;
  const layers = `${state.layersDone}/${formatCount(state.layers, 'layer')}`;
  const againBytes = state.receivedBytes - state.totalBytes;
  if (againBytes > 0) return { ...state, message: `${layers}, ${formatBytes(againBytes)} fetched again` };
  return { ...state, message: verifying ? `verifying ${layers}` : layers };
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
