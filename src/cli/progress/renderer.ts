import type { CopyResult } from '../../api/copy.js';
import type { ExportEvent } from '../../api/export.js';
import type { PullEvent, PullResult } from '../../api/pull.js';

/** What a display hears of. */
export type ShownEvent = PullEvent | ExportEvent;

/** Shows a pull, a copy or an export on stderr. */
export interface Renderer {
  onEvent(event: ShownEvent): void;
  /** The display goes away; with a result it leaves a summary. */
  end(result?: PullResult | CopyResult): void;
}

/** What `work` resolves to; the display goes away with it, or with what `work` throws. */
export async function shownBy<T extends PullResult | CopyResult>(
  renderer: Renderer,
  work: (onEvent: Renderer['onEvent']) => Promise<T>,
): Promise<T> {
  try {
    const result = await work(renderer.onEvent);
    renderer.end(result);
    return result;
  } catch (error) {
    renderer.end();
    throw error;
  }
}
