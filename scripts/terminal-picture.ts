/** What a program wrote to a terminal, drawn as an SVG that moves. */

/** Output at a time since the start. */
export interface TerminalChunk {
  readonly atMs: number;
  readonly text: string;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

interface Cell {
  readonly text: string;
  readonly color: string;
}

const FOREGROUND = '#d6deeb';
const BACKGROUND = '#0d1117';
/** The colours that progress and prompts use, by their number in SGR (ECMA-48, section 8.3.117). */
const COLORS: Readonly<Record<string, string>> = { 32: '#7ee787', 36: '#56d4dd' };

/** Programs clear lines and write them anew: what is seen is what stays for longer than this. */
const MIN_SHOWN_MS = 25;
/** Eight pictures a second are as good as more, and a third of the size. */
const FRAME_MS = 125;
const LAST_FRAME_MS = 5000;

const CELL_WIDTH = 8;
const LINE_HEIGHT = 19;
const FONT_SIZE = 13.3;
const MARGIN = 14;

/** The SVG of this output on a terminal of this size; it begins anew some seconds after the end. */
export function terminalPicture(title: string, chunks: readonly TerminalChunk[], size: TerminalSize): string {
  const frames = framesOf(chunks, size);
  const endMs = frames.at(-1)!.atMs + LAST_FRAME_MS;
  const [width, height] = [size.columns * CELL_WIDTH, size.rows * LINE_HEIGHT];
  const lines = new Map<string, string>();
  const drawn = frames.map(({ rows }, i) => {
    const uses = rows.flatMap((row, at) => {
      const line = lineSvg(row);
      if (line === '') return [];
      if (!lines.has(line)) lines.set(line, `l${lines.size}`);
      return [`<use href="#${lines.get(line)}" y="${i * height + at * LINE_HEIGHT}"/>`];
    });
    return uses.join('');
  });
  const steps = frames.map(({ atMs }, i) => {
    return `${round((atMs / endMs) * 100)}%{transform:translateY(${-i * height}px)}`;
  });
  const definitions = [...lines].map(([line, id]) => `<g id="${id}">${line}</g>`);
  const [fullWidth, fullHeight] = [width + 2 * MARGIN, height + 2 * MARGIN];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${fullWidth}" height="${fullHeight}" viewBox="0 0 ${fullWidth} ${fullHeight}">`,
    `<title>${escaped(title)}</title>`,
    '<style>',
    `text{font:${FONT_SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}`,
    `#film{transform:translateY(${-(frames.length - 1) * height}px);animation:film ${round(endMs / 1000)}s step-end infinite}`,
    `@keyframes film{${steps.join('')}}`,
    '</style>',
    `<rect width="100%" height="100%" rx="8" fill="${BACKGROUND}"/>`,
    `<clipPath id="screen"><rect width="${width}" height="${height}"/></clipPath>`,
    `<defs>${definitions.join('\n')}</defs>`,
    `<g transform="translate(${MARGIN} ${MARGIN})" clip-path="url(#screen)"><g id="film">`,
    ...drawn.filter((line) => line !== ''),
    '</g></g>',
    '</svg>\n',
  ].join('\n');
}

interface Frame {
  readonly atMs: number;
  readonly rows: readonly (readonly Cell[])[];
}

/** What is seen, from when on: the first from 0 on. */
function framesOf(chunks: readonly TerminalChunk[], size: TerminalSize): Frame[] {
  const screen = new Screen(size);
  const frames: Frame[] = [{ atMs: 0, rows: screen.rows() }];
  let shown = '';
  for (const [i, { atMs, text }] of chunks.entries()) {
    screen.write(text);
    const next = chunks[i + 1]?.atMs ?? Number.POSITIVE_INFINITY;
    const isDue = next - atMs > FRAME_MS || atMs - frames.at(-1)!.atMs >= FRAME_MS;
    if (next - atMs < MIN_SHOWN_MS || !isDue) continue;
    const rows = screen.rows();
    const now = JSON.stringify(rows);
    if (now !== shown) frames.push({ atMs, rows });
    shown = now;
  }
  return frames;
}

/** Control sequences (ECMA-48, section 5.4), the other controls, and runs of printed text. */
const TOKENS = new RegExp(`${'\u001b'}\\[([?\\d;]*)([A-Za-z])|\\p{Cc}|\\P{Cc}+`, 'gu');

/** As much of a terminal as ora needs: lines, colours, moves of the cursor and erasing. */
class Screen {
  readonly #size: TerminalSize;
  #cells: Cell[][] = [[]];
  #row = 0;
  #column = 0;
  #color = FOREGROUND;

  constructor(size: TerminalSize) {
    this.#size = size;
  }

  /** Takes whole control sequences only. */
  write(text: string): void {
    for (const [token, parameters, final] of text.matchAll(TOKENS)) {
      if (final !== undefined) this.#control(parameters!, final);
      else if (token === '\n') this.#lineFeed();
      else if (token === '\r') this.#column = 0;
      else if (token === '\b') this.#column = Math.max(0, this.#column - 1);
      else if (token > '\u001b') for (const character of token) this.#put(character);
    }
  }

  rows(): Cell[][] {
    return this.#cells.map((row) => [...row]);
  }

  #put(text: string): void {
    if (this.#column >= this.#size.columns) {
      this.#column = 0;
      this.#lineFeed();
    }
    const row = this.#cells[this.#row]!;
    while (row.length < this.#column) row.push({ text: ' ', color: FOREGROUND });
    row[this.#column] = { text, color: this.#color };
    this.#column += 1;
  }

  #lineFeed(): void {
    this.#row += 1;
    if (this.#row === this.#cells.length) this.#cells.push([]);
    if (this.#cells.length > this.#size.rows) {
      this.#cells.shift();
      this.#row -= 1;
    }
  }

  #control(parameters: string, final: string): void {
    const count = Number(parameters || '1');
    const row = this.#cells[this.#row]!;
    switch (final) {
      case 'A':
        this.#row = Math.max(0, this.#row - count);
        break;
      case 'G':
        this.#column = count - 1;
        break;
      case 'K':
        row.length = parameters === '2' ? 0 : Math.min(row.length, this.#column);
        break;
      case 'J':
        row.length = Math.min(row.length, this.#column);
        this.#cells.length = this.#row + 1;
        break;
      case 'm':
        this.#color = COLORS[parameters] ?? FOREGROUND;
        break;
      default: // shows or hides the cursor, which is not drawn
    }
  }
}

/** A line: each run of a colour as wide as its cells, whatever the font. Empty for a blank one. */
function lineSvg(row: readonly Cell[]): string {
  const runs: { start: number; text: string; color: string }[] = [];
  for (const [start, { text, color }] of row.entries()) {
    const last = runs.at(-1);
    if (last !== undefined && last.color === color) last.text += text;
    else runs.push({ start, text, color });
  }
  const shown = runs.map((run) => ({ ...run, text: run.text.trimEnd() })).filter(({ text }) => text !== '');
  return shown
    .map(({ start, text, color }) => {
      const cells = [...text].length;
      const place = `x="${start * CELL_WIDTH}" y="${FONT_SIZE}" textLength="${cells * CELL_WIDTH}"`;
      return `<text ${place} lengthAdjust="spacingAndGlyphs" fill="${color}">${escaped(text)}</text>`;
    })
    .join('');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
