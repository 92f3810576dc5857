export { type RemovedImage, removeImage } from '../store/image-record.js';
export type { LeaseKind } from '../store/leases.js';
export { type BrokenOffBlob, type ListedImage, listStore, type StoreListing } from '../store/list.js';
export type { StoreOptions } from '../store/paths.js';
export { type PruneResult, pruneStore } from '../store/prune.js';
export { type DamagedPart, type VerifyResult, verifyStore } from '../store/verify.js';
