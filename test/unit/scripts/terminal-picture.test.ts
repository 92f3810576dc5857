import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type TerminalChunk, terminalPicture } from '../../../scripts/terminal-picture.js';

const SIZE = { columns: 10, rows: 3 };

/** The frames of a picture: the lines of each, by their row. */
function framesIn(svg: string): string[][] {
  const texts = new Map(
    [...svg.matchAll(/<g id="(l\d+)">(.*?)<\/g>/g)].map(([, id, line]) => [
      `#${id}`,
      [...line!.matchAll(/>([^<]+)<\/text>/g)].map(([, text]) => text).join(''),
    ]),
  );
  const heights = [...svg.matchAll(/translateY\(-?(\d+)px\)\}/g)].map(([, y]) => Number(y));
  const height = heights[1]!;
  const frames: string[][] = heights.map(() => []);
  for (const [, href, y] of svg.matchAll(/<use href="(#l\d+)" y="(\d+)"\/>/g)) {
    const row = Math.round((Number(y) % height) / (height / SIZE.rows));
    frames[Math.floor(Number(y) / height)]![row] = texts.get(href!)!;
  }
  return frames;
}

function play(...texts: string[]): string[][] {
  const chunks = texts.map((text, i): TerminalChunk => ({ atMs: 1000 * i, text }));
  return framesIn(terminalPicture('title', chunks, SIZE));
}

test('lines that are erased and written anew replace each other, and what does not fit scrolls out', () => {
  assert.deepEqual(play('$ run\r\n', 'one\r\ntwo', '\u001b[2K\u001b[1A\u001b[1G\u001b[Jdone\r\n', 'a\r\nb'), [
    [],
    ['$ run'],
    ['$ run', 'one', 'two'],
    ['$ run', 'done'],
    ['done', 'a', 'b'],
  ]);
});

test('a state that lasts for a moment only is not a frame', () => {
  const chunks = ['old', '\r\u001b[2K', 'new'].map((text, i) => ({ atMs: 1000 + i, text }));
  assert.deepEqual(framesIn(terminalPicture('title', chunks, SIZE)).slice(1), [['new']]);
});

test('colours stay with their text, and markup in it is escaped', () => {
  const svg = terminalPicture('title', [{ atMs: 1, text: '\u001b[32m$\u001b[39m <a>&\u001b[?25l' }], SIZE);
  assert.match(svg, /fill="#7ee787">\$<\/text><text x="8" [^>]*fill="#d6deeb"> &lt;a>&amp;<\/text>/);
});
