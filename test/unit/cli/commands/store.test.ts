import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imageTable } from '../../../../src/cli/commands/store.js';

const image = {
  image: 'docker.io/library/alpine:3.20',
  digest: `sha256:${'0123456789abcdef'.repeat(4)}`,
  platform: 'linux/amd64',
  sizeBytes: 8_000_000,
  sharedBytes: 0,
  lastUsed: '2026-01-31T12:05:00.000Z',
};

test('a table of images fits the terminal: digests become short, then columns go, and names stay whole', () => {
  const widths = [undefined, 160, 120, 100, 80, 60, 40].map((columns) => {
    const table = imageTable([image], columns);
    assert.ok(table.includes(image.image));
    assert.match(table, /\b0123456789ab/);
    return Math.max(...table.split('\n').map((line) => line.length));
  });
  assert.ok(
    widths.slice(1, -1).every((width, i) => width <= [160, 120, 100, 80, 60][i]!),
    `${widths}`,
  );
  assert.ok(imageTable([image]).includes(image.digest));
  assert.match(imageTable([image], 120), /0123456789ab {2}linux\/amd64 .* 2026-01-31 12:05 UTC$/m);
});
