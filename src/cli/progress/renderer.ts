import type { PullEvent, PullResult } from '../../index.js';

/** Shows a pull on stderr. */
export interface Renderer {
  onEvent(event: PullEvent): void;
  /** The display goes away; with a result it leaves a summary. */
  end(result?: PullResult): void;
}
