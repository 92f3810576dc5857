import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseOptions } from '../../../bench/options.js';

/** What is said about a wrong command line. */
function refusal(...argv: string[]): string {
  try {
    parseOptions(argv);
  } catch (error) {
    const { message, hint, exitCode } = error as Error & { hint?: string; exitCode?: number };
    assert.equal(exitCode, 2);
    return `${message}: ${hint}`;
  }
  return '';
}

test('an unknown option is refused, and the nearest one named', () => {
  assert.match(refusal('--fiels', '5'), /^npm run bench has no option --fiels: did you mean --files\? /);
  assert.match(refusal('--onyl=1'), /no option --onyl: did you mean --only\?/);
  assert.match(refusal('--something-else'), /no option --something-else: npm run bench -- --help lists/);
  assert.match(refusal('-x'), /no option -x: npm run bench/);
  assert.match(refusal('word'), /word/);
  assert.match(refusal('--runs'), /--runs/);
});

test('rows that do not exist are refused, with those that do', () => {
  assert.match(refusal('--only', '1,99'), /no row "99": there are 1, 2, 3, .*, 18, 20, /);
  assert.match(refusal('--only', '1a'), /no row "1a"/);
  assert.match(refusal('--only', ''), /no row ""/);
  assert.match(refusal('--only', '31'), /no row "31"/);
  assert.match(refusal('--real', '--only', '1'), /no row "1": there are 31, /);
  assert.deepEqual([...parseOptions(['--only', '1, 20'])!.only!], [1, 20]);
  assert.deepEqual([...parseOptions(['--real', '--only', '31'])!.only!], [31]);
});

test('numbers that are none are refused', () => {
  for (const text of ['0', '1.5', 'x', '']) assert.match(refusal('--runs', text), /--runs must be a whole/);
});

test('help is asked for whatever else is said', () => {
  assert.equal(parseOptions(['--help', '--only', '99']), undefined);
  assert.equal(parseOptions(['-h']), undefined);
});
