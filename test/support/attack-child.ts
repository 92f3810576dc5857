/** Exports a root file system by the options in its argument; says the code of the error that it ended with. */
import { exportRootfs } from '../../src/index.js';

await exportRootfs(JSON.parse(process.argv[2]!)).catch((error: Error & { code?: string }) =>
  console.log(error.code ?? error.message),
);
