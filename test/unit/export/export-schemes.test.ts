import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkDestination } from '../../../src/export/export-schemes.js';
import { temporaryDirectory } from '../../support/temporary.js';

const SCHEMES = ['tar', 'rootfs', 'layers', 'docker-archive'] as const;

test('what no export can write to is refused before it is tried', (t) => {
  const root = temporaryDirectory(t);
  const places = Object.fromEntries(
    ['absent', 'absent/in', 'file', 'empty', 'full', 'dangling', 'linked'].map((name) => [
      name,
      join(root, name),
    ]),
  );
  writeFileSync(places['file']!, '');
  mkdirSync(places['empty']!);
  mkdirSync(join(places['full']!, 'x'), { recursive: true });
  symlinkSync('nowhere', places['dangling']!);
  symlinkSync('empty', places['linked']!);
  const refused = SCHEMES.map((scheme) => [
    scheme,
    Object.entries(places).flatMap(([name, path]) => (isRefused(scheme, path) ? [name] : [])),
  ]);
  assert.deepEqual(Object.fromEntries(refused), {
    tar: ['absent/in', 'empty', 'full', 'linked'],
    rootfs: ['file', 'full', 'dangling'],
    layers: ['file', 'dangling'],
    'docker-archive': ['absent/in', 'empty', 'full', 'linked'],
  });
  checkDestination('rootfs', places['full']!, true);
  checkDestination('tar', '/dev/null', false);
  assert.equal(isRefused('docker-archive', '/dev/null'), true);
});

function isRefused(scheme: (typeof SCHEMES)[number], path: string): boolean {
  try {
    checkDestination(scheme, path, false);
    return false;
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'option-malformed');
    return true;
  }
}
