import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCopyDestination, parseDestination, parseOutput } from '../../../src/cli/destination.js';
import { UsageError } from '../../../src/cli/failure.js';

test('a destination is a scheme and a path, which may hold colons', () => {
  assert.deepEqual(parseDestination('layers:./a:b'), { scheme: 'layers', path: './a:b' });
  assert.deepEqual(parseDestination('tar:-'), { scheme: 'tar', path: '-' });
});

test('an unknown scheme, no scheme and no path are wrong usage, with the schemes as hint', () => {
  for (const text of ['zip:x', 'layers', ':x', '', 'layers:', 'constructor:x']) {
    assert.throws(
      () => parseDestination(text),
      (error) => error instanceof UsageError && error.hint.includes('layers:PATH'),
      text,
    );
  }
});

test('who exports into a layout is told of copy', () => {
  const hint = 'blobs as they are: zpull copy IMAGE oci:x';
  assert.throws(() => parseDestination('oci:x'), { code: 'option-malformed', hint });
});

test('a copy goes to a layout or an archive, with or without a tag', () => {
  assert.deepEqual(parseCopyDestination('oci:./dir'), { kind: 'layout', path: './dir' });
  assert.deepEqual(parseCopyDestination('oci:/a/b:v1.2'), { kind: 'layout', path: '/a/b', tag: 'v1.2' });
  assert.deepEqual(parseCopyDestination('oci-archive:x.tar:host/name:tag'), {
    kind: 'archive',
    path: 'x.tar',
    tag: 'host/name:tag',
  });
});

test('what is no destination of a copy is refused', () => {
  for (const text of [
    '',
    'oci',
    'oci:',
    'oci::tag',
    'dir:x',
    'tar:x',
    'oci:x:',
    'oci:x:a b',
    'constructor:x',
    '/x',
  ]) {
    assert.throws(() => parseCopyDestination(text), { code: 'option-malformed' }, text);
  }
});

test('a pull writes to what an export or a copy goes to, and its hint names all of them', () => {
  assert.deepEqual(parseOutput('tar:x'), { scheme: 'tar', path: 'x' });
  assert.deepEqual(parseOutput('oci:x:v1'), { kind: 'layout', path: 'x', tag: 'v1' });
  assert.throws(() => parseOutput('oci:'), {
    hint: 'a copy goes to oci:DIR[:TAG] or oci-archive:FILE[:TAG]',
  });
  const named = (error: unknown) =>
    error instanceof UsageError &&
    ['rootfs:PATH', 'oci:DIR', 'oci-archive:FILE'].every((name) => error.hint.includes(name));
  assert.throws(() => parseOutput('zip:x'), named);
});
