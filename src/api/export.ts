export { checkDestination } from '../export/destination.js';
export type { ExportEvent } from '../export/events.js';
export { exportDockerArchive } from '../export/export-docker-archive.js';
export { exportLayers } from '../export/export-layers.js';
export { exportRootfs } from '../export/export-rootfs.js';
export { exportTar } from '../export/export-tar.js';
export type { ExportOptions } from '../export/options.js';
export { RootfsFollower } from '../export/rootfs-follower.js';
export { TagFollower } from '../export/tag-follower.js';
