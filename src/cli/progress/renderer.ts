import type { CopyResult, ExportEvent, PullEvent, PullResult } from '../../index.js';

/** What a display hears of. */
export type ShownEvent = PullEvent | ExportEvent;

/** Shows a pull, a copy or an export on stderr. */
export interface Renderer {
  onEvent(event: ShownEvent): void;
  /** The display goes away; with a result it leaves a summary. */
  end(result?: PullResult | CopyResult): void;
}
