/**
 * Exports or copies an image by the job in its argument, a root file system unless it has a `kind`; says the code of the error that it
 * ended with.
 */
import { copyImage } from '../../src/api/copy.js';
import { exportDockerArchive, exportLayers, exportRootfs, exportTar } from '../../src/api/export.js';

const { kind = 'rootfs', reference, ...options } = JSON.parse(process.argv[2]!);

const WORK: Readonly<Record<string, () => Promise<unknown>>> = {
  rootfs: () => exportRootfs(options),
  layers: () => exportLayers(options),
  tar: () => exportTar(options),
  'docker-archive': () => exportDockerArchive({ reference, ...options }),
  copy: () => copyImage(reference, options),
};

await WORK[kind]!().catch((error: Error & { code?: string }) => console.log(error.code ?? error.message));
