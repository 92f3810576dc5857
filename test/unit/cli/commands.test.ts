import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMANDS, helpText } from '../../../src/cli/commands.js';

test('help names every option of its command with placeholder, default and choices', () => {
  const text = helpText(COMMANDS[0], 100);
  assert.match(text, /^Usage: zpull pull IMAGE…$/m);
  assert.match(text, /^ {6}--workers N +worker threads \(default: the cores/m);
  assert.match(text, /^ {2}-q, --quiet +say nothing/m);
  assert.match(text, /\(auto, tty, plain, json, none;\s+default: auto\)/);
});

test('help of zpull itself names every command and an example of each', () => {
  const text = helpText(undefined, 100);
  for (const { name, examples } of COMMANDS) {
    assert.match(text, new RegExp(`^ {2}${name}\\b`, 'm'));
    for (const [line] of examples) assert.ok(text.includes(`\n  ${line}\n`));
  }
});

test('no line of options is longer than the terminal is wide, nor than 100 columns', () => {
  for (const columns of [80, 100, 500]) {
    const options = /^Options.*\n((?: .*\n)+)/m.exec(helpText(undefined, columns))?.[1] ?? '';
    const longest = Math.max(...options.split('\n').map((line) => line.length));
    assert.ok(longest > 60 && longest <= Math.min(columns, 100), `${longest} of ${columns}`);
  }
});
