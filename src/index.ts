/** zpull's public API. */
export { exportLayers } from './export/export-layers.js';
export { ERROR_CODES, type ErrorCode, type Failure, PullError } from './format/error.js';
export type { LayerFormat } from './format/layer-format.js';
export type { PullEvent } from './pull/events.js';
export type { ImageInspection, LayerInspection } from './pull/inspection.js';
export type { LayerResult, Policy, PullOptions, PullResult } from './pull/options.js';
export { inspectImage, pullImage } from './pull/pull.js';
export { type BrokenOffBlob, type ListedImage, listStore, type StoreListing } from './store/list.js';
export { type PruneResult, pruneStore } from './store/prune.js';
export { type RemovedImage, removeImage } from './store/remove-image.js';
export { type DamagedPart, type VerifyResult, verifyStore } from './store/verify.js';
