import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matchesGlob } from '../../../src/cli/glob.js';

test('a pattern matches a text as a whole', () => {
  for (const [pattern, text, matches] of [
    ['3.20', '3.20', true],
    ['3.20', '3120', false],
    ['3.*', '3.20', true],
    ['3.*', '13.2', false],
    ['*alpine*', 'docker.io/library/alpine:latest', true],
    ['*-v2', 'chunked-v2', true],
    ['v?', 'v1', true],
    ['v?', 'v10', false],
    ['v[0-9]', 'v7', true],
    ['v[!0-9]', 'v7', false],
    ['[v', '[v', true],
    ['[z-a]', '[z-a]', true],
    ['a\\*', 'a*', true],
    ['a\\*', 'ab', false],
    ['a+(b|c)$', 'a+(b|c)$', true],
    ['', '', true],
  ] as const) {
    assert.equal(matchesGlob(pattern, text), matches, `${pattern} ${text}`);
  }
});
