/** zpull's public API. */
export { checkDestination } from './export/destination.js';
export type { ExportEvent } from './export/events.js';
export { exportDockerArchive } from './export/export-docker-archive.js';
export { exportLayers } from './export/export-layers.js';
export { exportRootfs } from './export/export-rootfs.js';
export { exportTar } from './export/export-tar.js';
export type { ExportOptions } from './export/options.js';
export { ERROR_CODES, type ErrorCode, type Failure, PullError, toFailure } from './format/error.js';
export type { LayerFormat } from './format/layer-format.js';
export { type CopyOptions, type CopyResult, checkCopyDestination, copyImage } from './pull/copy.js';
export type { PullEvent } from './pull/events.js';
export type { ImageInspection, LayerInspection } from './pull/inspection.js';
export type { LayerResult, Policy, PullOptions, PullResult } from './pull/options.js';
export { inspectImage, pullImage } from './pull/pull.js';
export { type BrokenOffBlob, type ListedImage, listStore, type StoreListing } from './store/list.js';
export { type PruneResult, pruneStore } from './store/prune.js';
export { type RemovedImage, removeImage } from './store/remove-image.js';
export { type DamagedPart, type VerifyResult, verifyStore } from './store/verify.js';
