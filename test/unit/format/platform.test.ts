import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  choosePlatform,
  formatPlatform,
  hostPlatform,
  normalisePlatform,
  parsePlatform,
} from '../../../src/format/platform.js';
import { throwsError } from './fixture.js';

const normal: [string, string][] = [
  ['linux/amd64', 'linux/amd64'],
  ['Linux/AMD64', 'linux/amd64'],
  ['linux/amd64/v1', 'linux/amd64'],
  ['linux/amd64/v3', 'linux/amd64/v3'],
  ['linux/x86_64', 'linux/amd64'],
  ['linux/x86-64', 'linux/amd64'],
  ['linux/i386', 'linux/386'],
  ['linux/aarch64', 'linux/arm64'],
  ['linux/arm64/v8', 'linux/arm64'],
  ['linux/arm64/8', 'linux/arm64'],
  ['linux/arm64/v8.0', 'linux/arm64'],
  ['linux/arm64/v9.0', 'linux/arm64/v9'],
  ['linux/arm', 'linux/arm/v7'],
  ['linux/arm/6', 'linux/arm/v6'],
  ['linux/armhf', 'linux/arm/v7'],
  ['linux/armel', 'linux/arm/v6'],
  ['linux/riscv64', 'linux/riscv64'],
  ['windows/amd64', 'windows/amd64'],
  ['amd64', 'linux/amd64'],
  ['aarch64', 'linux/arm64'],
  ['ARM64/v9', 'linux/arm64/v9'],
  ['arm/6', 'linux/arm/v6'],
];

for (const [text, expected] of normal) {
  test(`${text} is ${expected}`, () => {
    assert.equal(formatPlatform(parsePlatform(text)), expected);
    assert.deepEqual(normalisePlatform(parsePlatform(text)), parsePlatform(text));
  });
}

for (const text of [
  '',
  'linux',
  'linux/',
  '/amd64',
  'linux/arm/v7/x',
  'linux/am d64',
  'linux/arm/',
  'a/b\n',
]) {
  test(`${JSON.stringify(text)} is no platform`, () => {
    throwsError(() => parsePlatform(text), 'option-malformed', /is not OS\/ARCH\[\/VARIANT\]/);
  });
}

test('the host is linux on what Node calls its architecture', () => {
  const host = (arch: string) => formatPlatform(hostPlatform(arch));
  assert.deepEqual(['x64', 'arm64', 'arm', 'ia32', 'ppc64', 's390x', 'riscv64'].map(host), [
    'linux/amd64',
    'linux/arm64',
    'linux/arm/v7',
    'linux/386',
    'linux/ppc64le',
    'linux/s390x',
    'linux/riscv64',
  ]);
});

/** The text of the entry chosen from entries written as platforms, with `+zstd` for the annotation. */
function choose(wanted: string, entries: string[]): string | undefined {
  const candidates = entries.map((text) => {
    const [os = '', architecture = '', variant] = text.replace('+zstd', '').split('/');
    return {
      text,
      platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
      annotations: text.endsWith('+zstd') ? { 'io.github.containers.compression.zstd': 'true' } : {},
    };
  });
  return choosePlatform(parsePlatform(wanted), candidates)?.text;
}

const choices: [string, string, string[], string | undefined][] = [
  ['the same platform', 'linux/arm64', ['linux/amd64', 'linux/arm64'], 'linux/arm64'],
  ['the same written otherwise', 'linux/arm64', ['linux/amd64', 'linux/aarch64/v8'], 'linux/aarch64/v8'],
  ['no other system', 'linux/amd64', ['windows/amd64'], undefined],
  ['no other architecture', 'linux/arm64', ['linux/arm/v7'], undefined],
  [
    'the exact variant first',
    'linux/arm/v7',
    ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v7'],
    'linux/arm/v7',
  ],
  ['the next variant below', 'linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6'], 'linux/arm/v6'],
  ['two variants below', 'linux/arm/v7', ['linux/arm/v5'], 'linux/arm/v5'],
  ['no variant above', 'linux/arm/v6', ['linux/arm/v7', 'linux/arm'], undefined],
  ['plain amd64 for v3', 'linux/amd64/v3', ['linux/amd64', 'linux/amd64/v4'], 'linux/amd64'],
  ['v2 before plain for v3', 'linux/amd64/v3', ['linux/amd64', 'linux/amd64/v2'], 'linux/amd64/v2'],
  ['no amd64 above', 'linux/amd64', ['linux/amd64/v2'], undefined],
  ['v8 for v9', 'linux/arm64/v9', ['linux/arm64'], 'linux/arm64'],
  ['v9.1 before v8 for v9.2', 'linux/arm64/v9.2', ['linux/arm64', 'linux/arm64/v9.1'], 'linux/arm64/v9.1'],
  [
    'v8.5 for v9',
    'linux/arm64/v9',
    ['linux/arm64/v8.6', 'linux/arm64', 'linux/arm64/v8.5'],
    'linux/arm64/v8.5',
  ],
  ['v8 for v8.4', 'linux/arm64/v8.4', ['linux/arm64/v8.5', 'linux/arm64/v8'], 'linux/arm64/v8'],
  ['no v9 for v8', 'linux/arm64', ['linux/arm64/v9'], undefined],
  ['never unknown', 'unknown/unknown', ['unknown/unknown'], undefined],
  ['the first of equals', 'linux/amd64', ['linux/x86_64', 'linux/amd64'], 'linux/x86_64'],
  ['zstd among equals', 'linux/amd64', ['linux/amd64', 'linux/amd64+zstd'], 'linux/amd64+zstd'],
  ['a better variant before zstd', 'linux/arm/v7', ['linux/arm/v6+zstd', 'linux/arm/v7'], 'linux/arm/v7'],
  ['an unknown variant exactly', 'linux/mips64/r6', ['linux/mips64', 'linux/mips64/r6'], 'linux/mips64/r6'],
  [
    'a variant with zeros before it exactly',
    'linux/arm/v00',
    ['linux/arm/v0', 'linux/arm/v00'],
    'linux/arm/v00',
  ],
  ['nothing from nothing', 'linux/amd64', [], undefined],
];

for (const [what, wanted, entries, expected] of choices) {
  test(`an index offers ${what}`, () => {
    assert.equal(choose(wanted, entries), expected);
  });
}

test('an entry without a platform is not chosen', () => {
  assert.equal(choosePlatform(parsePlatform('linux/amd64'), [{}]), undefined);
});
