import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { skipUnless, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { Screen } from '../support/screen.js';
import { temporaryDirectory } from '../support/temporary.js';

const V1 = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';

/** A terminal that no variable of the tests' own environment makes a plain one. */
const ENV = { ...process.env, TERM: 'xterm-256color', CI: '', NO_COLOR: '' };

function quoted(args: readonly string[]): string {
  return args.map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`).join(' ');
}

/** Runs the command in a pseudo terminal of this size. Returns what it showed. */
async function inTerminal(columns: number, env: NodeJS.ProcessEnv, ...args: string[]): Promise<Screen> {
  const command = `stty cols ${columns} rows 24; exec ${quoted([process.execPath, ...ZPULL, ...args])}`;
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    env: { ...ENV, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  const output = await text(child.stdout);
  assert.deepEqual((await closed)[0], 0, output);
  const screen = new Screen(columns);
  screen.write(output);
  return screen;
}

const WAIT: FaultRule = {
  match: { path: '/manifests/', nth: 1 },
  action: { retryAfter: { status: 429, seconds: 2 } },
};

async function slowImage(t: TestContext, faults: readonly FaultRule[] = []): Promise<string> {
  const { host } = await startSandbox(t, { faults, ratePerConnectionBytes: 400_000 });
  return `${host}/x:chunked-v1`;
}

const noScript = skipUnless('script', 'stty');

test('in a terminal a pull shows a line a layer and the total, and leaves one line', {
  skip: noScript,
}, async (t) => {
  for (const columns of [60, 120]) {
    const isNarrow = columns < 80;
    const image = await slowImage(t, isNarrow ? [WAIT] : []);
    const store = temporaryDirectory(t);
    const { lines, frames } = await inTerminal(columns, {}, '--store', store, image);
    const left = lines.join('\n');
    assert.match(left, /^127\.0\.0\.1:\d+\/x:chunked-v1: .*verified in /m);
    assert.doesNotMatch(left, /░|^ {2}/m);
    assert.ok(left.replaceAll('\n', '').endsWith(V1));
    const shown = frames.filter((frame) => frame.some((line) => /^ {2}[0-9a-f]{12} {2}fetching/.test(line)));
    assert.ok(shown.length > 2, `${frames.length} frames`);
    for (const frame of shown) {
      const heading = /^\S 127\.0\.0\.1:\d+\/x:chunked-v1 {2}linux\/amd64$/;
      assert.equal(frame.filter((line) => heading.test(line)).length, 1, frame.join('\n'));
      assert.equal(frame.filter((line) => /^ {2}[0-9a-f]{12} {2}/.test(line)).length, 3, frame.join('\n'));
      assert.ok(frame.every((line) => line.length < columns));
    }
    assert.ok(frames.flat().every((line) => !/eta -|eta 0s|0 B\/0 B/.test(line)));
    if (isNarrow) assert.ok(frames.flat().some((line) => /asks to wait.*; retrying in [012] s/.test(line)));
  }
});

test('with CI and NO_COLOR a terminal gets lines with the name of the image', {
  skip: noScript,
}, async (t) => {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const env = { CI: 'true', NO_COLOR: '1' };
  const { lines, frames } = await inTerminal(160, env, '--store', temporaryDirectory(t), image);
  assert.deepEqual(frames, []);
  assert.ok(
    lines.slice(0, 3).every((line) => line.startsWith(`${image}: `)),
    lines.join('\n'),
  );
});
