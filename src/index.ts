/** zpull's public API. */
export type { ExportEvent } from './export/events.js';
export { exportDockerArchive } from './export/export-docker-archive.js';
export { exportLayers } from './export/export-layers.js';
export { exportRootfs } from './export/export-rootfs.js';
export { exportTar } from './export/export-tar.js';
export type { ExportOptions } from './export/options.js';
export { ERROR_CODES, type ErrorCode, type Failure, PullError } from './format/error.js';
export type { LayerFormat } from './format/layer-format.js';
export { type CopyOptions, type CopyResult, copyImage } from './pull/copy.js';
export type { PullEvent } from './pull/events.js';
export type { LayerResult, Policy, PullOptions, PullResult } from './pull/options.js';
export { pullImage } from './pull/pull.js';
