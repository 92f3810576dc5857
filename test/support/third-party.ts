import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, readSource } from './sources.js';

/** An entry of package-lock.json (npm's package-lock-json(5)), as far as tests look at it. */
export interface LockedPackage {
  readonly version: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly dev?: boolean;
  readonly hasInstallScript?: boolean;
}

const HEAD = `# Third-party software

zpull itself is under the Apache License 2.0 (\`LICENSE\`). These npm packages are installed with it; of those that name a platform only the ones for
yours. Each brings its own licence text; \`dist/bundle/\` has parts of undici, fzstd, simple-statistics, smol-toml, yargs and zstddec in it, and all
of uPlot 1.6.32 (MIT) with its licence text, as has each page that \`zpull bench --html\` writes. \`npm run third-party\` writes this file from \`package-lock.json\`, and a test compares the two.

The binaries of \`@mongodb-js/zstd\` contain libzstd 1.5.2 (BSD-3-Clause), bound through Rust crates (MIT or Apache-2.0). \`undici\` contains llhttp (MIT),
compiled to WebAssembly, and \`zstddec\` libzstd 1.5.7 (BSD-3-Clause).

| package | version | licence |
|---|---|---|
`;

/** The packages of package-lock.json by their paths (\`node_modules/NAME\`), without the project itself. */
export function lockedPackages(): Array<[path: string, locked: LockedPackage]> {
  const { packages } = JSON.parse(readSource('package-lock.json')) as {
    packages: Record<string, LockedPackage>;
  };
  return Object.entries(packages).filter(([path]) => path !== '');
}

/** Returns the required contents of THIRD-PARTY.md: name, version and licence of every package that users install. */
export function thirdPartyPage(): string {
  const rows = lockedPackages()
    .filter(([, { dev }]) => dev !== true)
    .map(
      ([path, { version, license }]) => `| ${nameOf(path)} | ${version} | ${license ?? 'none stated'} |\n`,
    );
  return HEAD + [...new Set(rows)].sort().join('');
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
}

if (process.argv[1] === import.meta.filename) writeFileSync(join(ROOT, 'THIRD-PARTY.md'), thirdPartyPage());
