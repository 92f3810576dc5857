export { TagFollower } from '../export/block-tags.js';
export { exportRootfs, exportTar } from '../export/export-files.js';
export { exportDockerArchive, exportLayers } from '../export/export-layers.js';
export type { ExportEvent } from '../export/export-run.js';
export { RootfsFollower } from '../export/rootfs-follower.js';
