import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exists, pagesOfProject, readSource, sourceFiles } from '../support/sources.js';

/** Words that had a private meaning here, and the field's word. Tests may use plain English as they like; names they may not. */
const NAMES: readonly (readonly [pattern: RegExp, rather: string])[] = [
  [/\bBlobStream\b|\bStreamPack\b|\bWhole(?:Layer|Blob|Result)\b|\b(?:plan|pull)Whole\b/, 'opaque layer'],
  [/\bHeld[A-Z]\w*|\bheld[A-Z]\w*|\b(?:are|empty|list|nothing)Held\b|\bkept(?:Token|Blob|Image)\b/, 'cached'],
  [/\b(?:find|mark)Rot(?:ten)?\b/, 'corruption'],
  [/\bLane\b/, 'connection'],
  [/\bRegistryLink\b/, 'session'],
  [/\bsettle\(options\b/, 'resolveOptions'],
  [/\b[Oo]utflow\b/, 'decoded queue'],
  [/\bNotedBytes\b/, 'checkpointed writer'],
  [/\b(?:class|new) Turns\b/, 'semaphore'],
  [/\b(?:\w+_)?(?:MOST|LEAST)_\w+/, 'MAX_ and MIN_'],
  [/\bunlessAbsent\b/, 'ifExists'],
  [/\bonDisk(?:Async)?\b/, 'wrapFsError'],
  [/\blayout\b.*'(?:split|apart|within)'/, 'tar-split, separate-frames, shared-frames'],
];

/** Turns of phrase that have to be read twice, in comments, messages and pages. */
const PHRASES: readonly (readonly [pattern: RegExp, rather: string])[] = [
  [/\bone stream\b/, 'opaque layer'],
  [/\brot(?:ten)?\b/, 'corruption'],
  [/\bwhoever\b/i, 'who does it: the caller, the user, the process'],
  [/\bnobody (?:hears|knows)\b/i, 'what does not happen'],
  [/\bputs? up with\b/, 'allows, refuses'],
  [/\bno \w+ can end well\b/, 'what is wrong with it'],
  [/\bbytes that are gone\b/, 'missing bytes'],
  [/\bas ever\b/, 'as before'],
];

function findings(path: string, text: string, words: typeof NAMES): string[] {
  return text.split('\n').flatMap((line, row) =>
    words.flatMap(([pattern, rather]) => {
      const found = pattern.exec(line)?.[0];
      return found === undefined ? [] : [`${path}:${row + 1}: "${found}", rather ${rather}`];
    }),
  );
}

test('code has no name that the glossary replaced', () => {
  const files = sourceFiles().filter((path) => path !== 'test/unit/glossary.test.ts');
  assert.deepEqual(
    files.flatMap((path) => findings(path, readSource(path), NAMES)),
    [],
  );
});

test('sources and pages have no phrase that has to be read twice', () => {
  const files = [...sourceFiles().filter((path) => !path.startsWith('test/')), ...pagesOfProject()];
  assert.ok(files.includes('README.md') && files.includes('docs/karma.md'));
  assert.deepEqual(
    files.flatMap((path) => findings(path, readSource(path), PHRASES)),
    [],
  );
});

test('old words are found in names and in sentences, and new ones are let pass', () => {
  const found = (line: string) => findings('x.ts', line, [...NAMES, ...PHRASES]).length;
  for (const line of [
    'class BlobStream {}',
    'const heldPack = 1;',
    'const MOST_BYTES = 1;',
    "if (layout === 'apart') return;",
    '/** Whoever has the lock. */',
    'A layer that is one stream.',
  ]) {
    assert.equal(found(line), 1, line);
  }
  for (const line of [
    'class OpaqueAttempt {}',
    'const MAX_BYTES = 1;',
    'while (lock.isHeld) {}',
    "'split'",
  ]) {
    assert.equal(found(line), 0, line);
  }
});

test('every word of the glossary is used', () => {
  const page = readSource('ARCHITECTURE.md');
  const glossary = page.slice(page.indexOf('## Glossary'), page.indexOf('## The idea'));
  const words = [...glossary.matchAll(/^\| ([^|]+) \|/gm)].flatMap(([, cell]) => cell!.split(', '));
  const text = sourceFiles()
    .filter((path) => /^(src|workers)\//.test(path) && exists(path))
    .map(readSource)
    .join('\n')
    .toLowerCase();
  const ours = words.filter((word) => word !== 'word' && !word.startsWith('-'));
  assert.ok(ours.length > 15);
  assert.deepEqual(
    ours.filter((word) => !text.includes(word.toLowerCase())),
    [],
  );
});
