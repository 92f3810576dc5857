import type { ExportEvent } from './events.js';

/** What every export takes. */
export interface ExportOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** DiffIDs of the layers, lowest first. */
  readonly diffIds: readonly string[];
  /** Aborting ends the export at once; its reason is thrown, and nothing unfinished stays. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ExportEvent) => void;
}
