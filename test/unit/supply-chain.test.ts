import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exists, readSource } from '../support/sources.js';
import { lockedPackages, thirdPartyPage } from '../support/third-party.js';

interface Manifest {
  readonly version: string;
  readonly license?: string;
  readonly files: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

/** Packages that may run a program when they are installed, each with the reason why `--ignore-scripts` loses nothing. */
const MAY_RUN_SCRIPTS: Readonly<Record<string, string>> = {
  'node_modules/esbuild':
    'for development; its binary is a package of its own, which the script only looks at',
};

const manifest = manifestOf('package.json');
const locked = lockedPackages();

test('package.json names every dependency by one exact version, the one that is locked', () => {
  const versions = new Map(locked.map(([path, { version }]) => [path, version]));
  for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
    assert.match(version, /^\d+\.\d+\.\d+$/, name);
    assert.equal(versions.get(`node_modules/${name}`), version, name);
  }
});

test('every locked package has a strong hash and no address of a registry', () => {
  for (const [path, { integrity, resolved }] of locked) {
    assert.match(integrity ?? '', /^sha512-/, path);
    assert.equal(resolved, undefined, path);
  }
  assert.match(readSource('.npmrc'), /^omit-lockfile-registry-resolved=true$/m);
});

test('no package runs a program when it is installed, but for those that may', () => {
  const running = locked
    .filter(([, { hasInstallScript }]) => hasInstallScript === true)
    .map(([path]) => path);
  assert.deepEqual(running, Object.keys(MAY_RUN_SCRIPTS));
});

test('THIRD-PARTY.md lists what is installed with zpull', () => {
  assert.equal(readSource('THIRD-PARTY.md'), thirdPartyPage(), 'npm run third-party writes it anew');
  for (const [path, { version, license }] of locked) {
    if (!exists(`${path}/package.json`)) continue; // for another platform
    const installed = manifestOf(`${path}/package.json`);
    assert.deepEqual([installed.version, installed.license], [version, license], path);
  }
});

test('the package has what it says about security and licences in it', () => {
  for (const path of ['SECURITY.md', 'THIRD-PARTY.md', 'CHANGELOG.md']) {
    assert.ok(manifest.files.includes(path) && exists(path), path);
  }
});

function manifestOf(path: string): Manifest {
  return JSON.parse(readSource(path)) as Manifest;
}
