/** zpull's public API. */
export * from './api/client.js';
export type { CopyOptions, CopyResult } from './api/copy.js';
export { ERROR_CODES, type ErrorCode, PullError } from './api/errors.js';
export type { ExportEvent } from './api/export.js';
export type {
  EventOrigin,
  ImageInspection,
  LayerFormat,
  LayerInspection,
  LayerProgress,
  LayerResult,
  LayerState,
  Plan,
  Policy,
  PullEvent,
  PullOptions,
  PullResult,
  TagListing,
  TagOptions,
} from './api/pull.js';
export type { StageFigures, StageName, Stages } from './api/stages.js';
export * from './api/store.js';
