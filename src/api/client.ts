export {
  type CallOptions,
  Client,
  type ClientOptions,
  type CopyRequest,
} from '../client/client.js';
export type { ProgressEvent } from '../client/events.js';
export type { ExportRequest, ExportResult, ExportTarget } from '../client/export-image.js';
export type { FileEntry, FileQuery, FileType } from '../client/files.js';
export { copyImage, exportImage, inspectImage, listTags, pullImage } from '../client/functions.js';
export { type ServedLayout, type ServeOptions, serve } from '../client/serve.js';
export type { ClientStore } from '../client/store.js';
export type { CopyFigures } from '../copy/copy-blobs.js';
export type { Digest } from '../format/digest.js';
export type { FetchFigures } from '../pull/layer.js';
export type { ManifestDocument, Resolution } from '../pull/named-manifest.js';
export type { PlannedFigures } from '../pull/prepare-layers.js';
