/** What users type: references, platforms, command lines. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { nearest } from '../../../src/cli/check-arguments.js';
import { parseCopyDestination, parseDestination, parseOutput } from '../../../src/cli/destination.js';
import { UsageError } from '../../../src/cli/failure.js';
import { jsonLine, printable } from '../../../src/cli/format-text.js';
import type { NumberRule } from '../../../src/cli/options.js';
import { parseArguments, readNumber } from '../../../src/cli/parse-arguments.js';
import { isDigest, parseDigest } from '../../../src/format/digest.js';
import { choosePlatform, formatPlatform, hostPlatform, parsePlatform } from '../../../src/format/platform.js';
import {
  formatLocalImage,
  formatReference,
  parseLocalImage,
  parseReference,
} from '../../../src/format/reference.js';
import { apiHost, originOf } from '../../../src/registry/transport.js';
import { EDGE_NUMBERS, mutatedText } from '../mutate.js';
import { type Target, target, tolerate } from '../target.js';

const HEX = '0123456789abcdef'.repeat(4);

const REFERENCES = [
  'alpine',
  'docker.io/library/alpine:3.20',
  `ghcr.io/owner/name@sha256:${HEX}`,
  `localhost:5000/a/b__c.d-e:v1@sha256:${HEX}`,
  '[::1]:5000/name:tag',
  `name@sha512:${HEX}${HEX}`,
  HEX,
];

const reference = target(
  'reference',
  mutatedText(REFERENCES, ['@', ':', 'sha256:', 'localhost/', 'http://', '-', '__', 'A']),
  (text) => {
    const parsed = tolerate(() => parseReference(text), 'reference-malformed', 'unsupported');
    if (parsed === undefined) return;
    assert.deepEqual(parseReference(formatReference(parsed)), parsed);
    const url = tolerate(() => originOf('https', apiHost(parsed.host)), 'reference-malformed');
    if (url !== undefined) assert.equal(url.pathname, '/');
    parseReference(text, () => 'registry.example/full/name');
  },
);

const absolute = (path: string): string => (path.startsWith('/') ? path : `/${path}`);

const localImage = target(
  'local-image',
  mutatedText(['oci:dir:v1', `oci:/a:b/c:1@sha256:${HEX}`, 'oci-archive:x.tar'], ['@sha256:', ':', 'oci:']),
  (text) => {
    const parsed = tolerate(() => parseLocalImage(text, absolute), 'reference-malformed');
    if (parsed !== undefined) assert.deepEqual(parseLocalImage(formatLocalImage(parsed), absolute), parsed);
  },
);

const digest = target(
  'digest',
  mutatedText([`sha256:${HEX}`, `sha512:${HEX}${HEX}`, `blake3:${HEX}`]),
  (text) => {
    const parsed = tolerate(() => parseDigest(text, 'it'), 'metadata-malformed', 'unsupported');
    assert.equal(parsed !== undefined, isDigest(text));
  },
);

const PLATFORMS = [
  'linux/amd64',
  'linux/arm/v7',
  'linux/arm64/v8.1',
  'windows/x86_64',
  'linux/armhf',
  'linux/arm64/v9.5',
];

const platform = target(
  'platform',
  fc.tuple(mutatedText(PLATFORMS, ['/', 'v', 'V8', 'v99.99']), fc.array(fc.constantFrom(...PLATFORMS))),
  ([text, others]) => {
    const parsed = tolerate(() => parsePlatform(text), 'option-malformed');
    if (parsed === undefined) return;
    assert.deepEqual(parsePlatform(formatPlatform(parsed)), parsed);
    const candidates = [...others.map(parsePlatform), parsed].map((one) => ({ platform: one }));
    const chosen = choosePlatform(parsed, candidates);
    if (parsed.os !== 'unknown' && parsed.architecture !== 'unknown')
      assert.deepEqual(chosen?.platform, parsed);
    hostPlatform(text);
  },
);

const LINES = [
  ['alpine'],
  ['pull', '--platform', 'linux/amd64', 'alpine', '-qv'],
  ['export', 'alpine', 'rootfs:/x', '--force'],
  ['copy', 'alpine', 'oci:dir:tag', '--all-platforms'],
  ['store', 'prune', '--older-than=30d'],
  ['serve', 'dir', '--port', '0', '--rate=20M'],
  ['pull', '--limit-rate=10M', '--workers', '2', '--creds', 'a:b', '--', '-x'],
  ['completion', 'bash'],
];

const WORDS = [
  '--',
  '-',
  '=',
  '--json',
  '--workers',
  '-q',
  'pull',
  'help',
  'tar:',
  'oci-archive:',
  '--store=',
];

/** @throws what is no UsageError */
function asUser<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}

const commandLine = target(
  'command-line',
  fc
    .tuple(
      fc.constantFrom(...LINES),
      fc.array(fc.tuple(fc.nat(9), mutatedText(LINES.flat(), WORDS)), { maxLength: 4 }),
    )
    .map(([line, changes]) => {
      const argv: string[] = [...line];
      for (const [at, word] of changes) argv.splice(at % (argv.length + 1), at % 2, word);
      return argv;
    }),
  (argv) => {
    const checked = asUser(() => parseArguments(argv));
    if (checked === undefined) return;
    for (const name of Object.keys(checked.options)) {
      const isKnown = checked.command.options.some((option) => option.name === name);
      assert.ok(isKnown, name);
    }
  },
);

const NUMBERS = ['1', '20M', '1.5K', '30d', '0.001', '.5', '12h', '123456789012345G'];
const RULES: readonly NumberRule[] = [
  { kind: 'whole', min: 1, max: 512 },
  { kind: 'decimal', min: 0.001, max: 86_400 },
  { kind: 'bytes', min: 1, max: Number.MAX_SAFE_INTEGER },
  { kind: 'duration', min: 0, max: 86_400 * 36_500 },
];

const number = target(
  'number',
  fc.tuple(
    mutatedText([...NUMBERS, ...EDGE_NUMBERS], ['K', 'M', 'G', 's', 'd', '.', 'e']),
    fc.constantFrom(...RULES),
  ),
  ([text, rule]) => {
    const value = readNumber(text, rule);
    if (value === undefined) return;
    assert.ok(Number.isFinite(value) && value >= rule.min && value <= rule.max);
    if (rule.kind !== 'decimal') assert.ok(Number.isSafeInteger(value));
  },
);

const destination = target(
  'destination',
  mutatedText(
    ['tar:/a', 'rootfs:/a/b', 'oci:dir:tag', 'oci-archive:/file:a/b@c', 'docker-archive:x'],
    ['oci:', '::'],
  ),
  (text) => {
    for (const parse of [parseDestination, parseCopyDestination, parseOutput]) {
      const parsed = asUser((): { path: string } => parse(text));
      if (parsed !== undefined) assert.ok(parsed.path !== '' && text.includes(parsed.path));
    }
  },
);

const foreignText = target(
  'foreign-text',
  fc.tuple(mutatedText(REFERENCES, ['\u001b[2J', '\u202e']), fc.string()),
  ([text, other]) => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    assert.doesNotMatch(printable(text), /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/);
    const line = jsonLine({ text });
    assert.deepEqual(JSON.parse(line), { text });
    assert.equal(line.indexOf('\n'), line.length - 1);
    const isWithinLimit = nearest(text, [other], Math.max(text.length, other.length)) === other;
    assert.ok(isWithinLimit || text.length > 40 || other.length > 40);
  },
);

export const NAME_TARGETS: readonly Target[] = [
  reference,
  localImage,
  digest,
  platform,
  commandLine,
  number,
  destination,
  foreignText,
];
