/** zpull's public API. */
export { exportLayers } from './export/export-layers.js';
export { ERROR_CODES, type ErrorCode, type Failure, PullError } from './format/error.js';
export type { LayerFormat } from './format/layer-format.js';
export type { PullEvent } from './pull/events.js';
export type { ImageInspection, LayerInspection } from './pull/inspection.js';
export type { LayerResult, Policy, PullOptions, PullResult } from './pull/options.js';
export { inspectImage, pullImage } from './pull/pull.js';
