export { exportDockerArchive } from '../export/export-docker-archive.js';
export { exportLayers } from '../export/export-layers.js';
export { exportRootfs } from '../export/export-rootfs.js';
export type { ExportEvent, ExportOptions } from '../export/export-run.js';
export { checkDestination } from '../export/export-schemes.js';
export { exportTar } from '../export/export-tar.js';
export { TagFollower } from '../export/exported-layers.js';
export { RootfsFollower } from '../export/rootfs-follower.js';
