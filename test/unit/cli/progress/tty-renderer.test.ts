import assert from 'node:assert/strict';
import { clearLine, cursorTo, moveCursor } from 'node:readline';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WriteStream } from 'node:tty';
import { createTtyRenderer } from '../../../../src/cli/progress/tty-renderer.js';
import type { LayerProgress, PullEvent } from '../../../../src/index.js';
import { Screen } from '../../../support/screen.js';

/** A terminal that shows on a `Screen` what is written to it, and can be resized. */
class Terminal extends Writable {
  readonly isTTY = true;
  readonly rows = 24;
  columns = 120;
  readonly screen = new Screen(120);

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    // As the driver of a terminal does.
    this.screen.write(chunk.toString().replaceAll('\n', '\r\n'));
    done();
  }

  cursorTo = (column: number) => cursorTo(this, column);
  moveCursor = (dx: number, dy: number) => moveCursor(this, dx, dy);
  clearLine = (direction: -1 | 0 | 1) => clearLine(this, direction);

  resize(columns: number): void {
    this.columns = columns;
    this.screen.resize(columns);
    this.emit('resize');
  }

  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.screen.lines.join('\n'))) await sleep(20);
  }
}

const layers = [1, 2, 3].map(
  (number): LayerProgress => ({
    digest: `sha256:${String(number).repeat(64)}`,
    state: 'fetching',
    ...{ sizeBytes: 2e6, totalBytes: 2e6, receivedBytes: 1e6, reusedBytes: 5e5, resumedBytes: 5e5 },
  }),
);

const EVENTS: readonly PullEvent[] = [
  { event: 'resolving', image: 'alpine' },
  {
    ...{ event: 'resolved', image: 'alpine', digest: 'sha256:d', platform: 'linux/amd64' },
    ...{ layers: 3, totalBytes: 6e6 },
  },
  { event: 'planned', totalBytes: 6e6, fetchBytes: 6e6, reuseBytes: 0, resumeBytes: 0, requests: 3 },
  { event: 'layers', layers },
];

test('a block leaves nothing behind in a window that changes its width, and lines above stay', async (t) => {
  const terminal = new Terminal();
  terminal.write('before\n');
  const display = { verbose: false, debug: false };
  const renderer = await createTtyRenderer(terminal as unknown as WriteStream, display);
  t.after(() => renderer.end());
  for (const event of EVENTS) renderer.onEvent(event);
  await terminal.until(/333333333333 {2}fetching/);
  renderer.onEvent({ event: 'warning', message: 'look here' });
  for (const columns of [60, 40, 100, 30]) {
    terminal.resize(columns);
    const [before, warning, heading, ...others] = terminal.screen.lines;
    assert.deepEqual([before, warning], ['before', 'warning: look here'], `${columns} columns`);
    assert.match(heading!, /^\S alpine {2}linux\/amd64$/);
    assert.equal(others.length, 4, others.join('\n'));
    assert.ok(others.every((line) => line.length < columns));
  }
  renderer.end();
  assert.deepEqual(terminal.screen.lines, ['before', 'warning: look here']);
});
