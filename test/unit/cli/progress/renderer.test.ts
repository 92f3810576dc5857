import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import {
  createJsonRenderer,
  createRenderer,
  progressKind,
  summaryLine,
} from '../../../../src/cli/progress/renderer.js';
import {
  bar,
  createPlainRenderer,
  INITIAL_STATE,
  type ProgressState,
  progressLine,
} from '../../../../src/cli/progress/text-renderers.js';
import { type PullEvent, type PullResult, StageRecorder } from '../../../../src/index.js';

const QUIET = { verbose: false, debug: false };

const EVENTS: readonly PullEvent[] = [
  { event: 'resolving', image: 'alpine' },
  {
    event: 'resolved',
    image: 'alpine',
    digest: 'sha256:d',
    platform: 'linux/amd64',
    layers: 2,
    totalBytes: 3e6,
  },
  { event: 'planned', totalBytes: 2e6, fetchBytes: 2e6, reuseBytes: 1e6, resumeBytes: 5e5, requests: 3 },
  { event: 'progress', receivedBytes: 5e5, totalBytes: 2e6, writtenBytes: 0, verifiedBytes: 0 },
  { event: 'layer', diffId: 'sha256:e', done: 1, of: 2 },
  { event: 'miss', message: 'reset by \u001b[31mpeer' },
  { event: 'debug', line: 'GET /v2/' },
];

const RESULT: PullResult = {
  image: 'alpine',
  digest: 'sha256:d',
  platform: 'linux/amd64',
  store: '/s',
  layers: [
    {
      digest: 'sha256:b',
      diffId: 'sha256:e',
      mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
      format: 'zstd:chunked',
      sizeBytes: 3e6,
      tarBytes: 5e6,
      metadataBytes: 1000,
      fetchedBytes: 2e6,
      reusedBytes: 1e6,
      resumedBytes: 5e5,
      requests: 3,
    },
  ],
  fetchedBytes: 2e6,
  reusedBytes: 1e6,
  resumedBytes: 5e5,
  requests: 3,
  misses: 1,
  durationMs: 2000,
  stages: new StageRecorder().result(),
  verified: true,
};

function linesOf(stream: PassThrough): string[] {
  return String(stream.read() ?? '')
    .split('\n')
    .slice(0, -1);
}

test('plain progress has a line a step, what was found of an earlier pull, and a summary', () => {
  const stream = new PassThrough();
  const renderer = createPlainRenderer(stream, QUIET);
  for (const event of EVENTS) renderer.onEvent(event);
  renderer.end(RESULT);
  assert.deepEqual(linesOf(stream), [
    'alpine: resolving',
    'alpine: sha256:d linux/amd64, 2 layers, 3.0 MB',
    'alpine: fetching 2.0 MB in 3 requests, 1.0 MB are in the store',
    'found 500.0 kB of an interrupted pull',
    'alpine: fetched 2.0 MB in 3 requests, reused 1.0 MB of 5.0 MB, resumed 500.0 kB, 1 network failure; verified in 2.0 s, 1.0 MB/s',
  ]);
});

test('a copy has what is at its destination, and a summary of its own', () => {
  const stream = new PassThrough();
  const renderer = createPlainRenderer(stream, { ...QUIET, cachedWhere: 'at the destination' });
  for (const event of EVENTS) renderer.onEvent(event);
  const { layers: _, ...copied } = RESULT;
  renderer.end({ ...copied, resumedBytes: 0 });
  const lines = linesOf(stream);
  assert.equal(lines[2], 'alpine: fetching 2.0 MB in 3 requests, 1.0 MB are at the destination');
  assert.equal(
    lines.at(-1),
    'alpine: fetched 2.0 MB in 3 requests, 1.0 MB were there, 1 network failure; verified in 2.0 s, 1.0 MB/s',
  );
});

test('verbose adds layers and failures, debug the requests, and nothing a terminal might obey', () => {
  const stream = new PassThrough();
  const renderer = createPlainRenderer(stream, { verbose: true, debug: true });
  for (const event of EVENTS.slice(4)) renderer.onEvent(event);
  renderer.end();
  assert.deepEqual(linesOf(stream), [
    'layer 1 of 2: sha256:e',
    'network failure: reset by \\u{1b}[31mpeer',
    'GET /v2/',
  ]);
});

test('verbose says which manifest was chosen from an index', () => {
  const [, resolved] = EVENTS as [PullEvent, PullEvent & { event: 'resolved' }];
  for (const verbose of [false, true]) {
    const stream = new PassThrough();
    createPlainRenderer(stream, { verbose, debug: false }).onEvent({ ...resolved, indexDigest: 'sha256:i' });
    const told = linesOf(stream).slice(1);
    assert.deepEqual(told, verbose ? ['chose sha256:d (linux/amd64) from the index sha256:i'] : []);
  }
});

test('that a registry asks to wait is told without being asked', () => {
  const stream = new PassThrough();
  const renderer = createPlainRenderer(stream, QUIET);
  renderer.onEvent({ event: 'waiting', host: 'example.com', waitMs: 7000 });
  renderer.end();
  assert.deepEqual(linesOf(stream), ['example.com asks to wait: 7.0 s']);
});

test('plain progress says where it is every five seconds, even when no event comes', (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] });
  const stream = new PassThrough();
  let now = 0;
  const renderer = createPlainRenderer(stream, QUIET, () => now);
  renderer.onEvent(EVENTS[0]!);
  now = 1000;
  renderer.onEvent(EVENTS[3]!);
  stream.read();
  context.mock.timers.tick(10_000);
  renderer.end();
  context.mock.timers.tick(10_000);
  const line = 'alpine: 500.0 kB/2.0 MB 25 %, 500.0 kB/s, eta 3s, resolving';
  assert.deepEqual(linesOf(stream), [line, line]);
});

test('plain progress never shows more than the whole, nor a time that is over', (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] });
  const stream = new PassThrough();
  let now = 0;
  const renderer = createPlainRenderer(stream, QUIET, () => now);
  renderer.onEvent(EVENTS[0]!);
  now = 1000;
  const sizes = { receivedBytes: 9_000_000, totalBytes: 2_000_000, writtenBytes: 0, verifiedBytes: 0 };
  renderer.onEvent({ event: 'progress', ...sizes });
  stream.read();
  context.mock.timers.tick(5000);
  renderer.end();
  assert.match(linesOf(stream)[0]!, /: 2\.0 MB\/2\.0 MB 100 %, .*, eta 0s, /);
});

test('JSON progress is every event on a line of its own, debug lines only when asked for', () => {
  for (const debug of [false, true]) {
    const stream = new PassThrough();
    const renderer = createJsonRenderer(stream, { verbose: false, debug });
    for (const event of EVENTS) renderer.onEvent(event);
    renderer.end(RESULT);
    const expected = debug ? EVENTS : EVENTS.slice(0, -1);
    assert.deepEqual(
      linesOf(stream).map((line) => JSON.parse(line)),
      expected,
    );
  }
});

test('the summary of an image that was there says that nothing had to be fetched', () => {
  const there = { ...RESULT, fetchedBytes: 0, reusedBytes: 0, resumedBytes: 0, misses: 0 };
  assert.equal(summaryLine(there), 'alpine: nothing to fetch; verified in 2.0 s');
});

test('a bar needs a terminal that moves its cursor; what was asked for otherwise is given', () => {
  assert.equal(progressKind({}, true, 'xterm'), 'tty');
  assert.equal(progressKind({}, false, 'xterm'), 'plain');
  assert.equal(progressKind({}, true, 'dumb'), 'plain');
  assert.equal(progressKind({ progress: 'tty' }, false, 'xterm'), 'plain');
  assert.equal(progressKind({ progress: 'json' }, true, 'xterm'), 'json');
  assert.equal(progressKind({ progress: 'tty', quiet: true }, true, 'xterm'), 'none');
});

test('a terminal that says it has no columns gets plain lines: ora would never end', async () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 0 });
  const renderer = await createRenderer({ progress: 'tty' }, stream as unknown as NodeJS.WriteStream);
  for (const event of EVENTS) renderer.onEvent(event);
  renderer.end(RESULT);
  assert.ok(linesOf(stream).every((line) => !line.includes('\u001b')));
});

const STATE: ProgressState = {
  ...INITIAL_STATE,
  receivedBytes: 412_300_000,
  totalBytes: 1_200_000_000,
  exact: true,
  message: '2/5 layers',
};

test('at 100 columns the line has eta, a bar of 40, sizes, rate and message', () => {
  assert.equal(
    progressLine(STATE, 98_100_000, 100),
    `[eta 8s] ${'█'.repeat(13)}${'░'.repeat(27)}  412.3 MB/1.2 GB  98.1 MB/s  2/5 layers`,
  );
});

test('a narrower terminal loses length of the bar, message and rate, in this order', () => {
  const at = (columns: number): string => progressLine(STATE, 98_100_000, columns);
  assert.match(at(80), /^\[eta 8s\] [█░]{20} {2}412\.3 MB\/1\.2 GB {2}98\.1 MB\/s {2}2\/5 layers$/);
  assert.match(at(56), /^\[eta 8s\] [█░]{8} {2}412\.3 MB\/1\.2 GB {2}98\.1 MB\/s$/);
  assert.match(at(40), /^\[eta 8s\] [█░]{8} {2}412\.3 MB\/1\.2 GB$/);
});

test('no line reaches the last column beside the spinner, whatever it has to say', () => {
  const extremes: readonly [ProgressState, number][] = [
    [STATE, 98_100_000],
    [{ ...STATE, message: 'x'.repeat(500) }, 1],
    [{ ...STATE, message: '大きさ'.repeat(50) }, 1e15],
    [{ ...STATE, receivedBytes: 999_949_000, totalBytes: 999_949_000_000, exact: false }, 999_949_000],
    [INITIAL_STATE, 0],
  ];
  for (const [state, rate] of extremes) {
    for (let columns = 40; columns <= 220; columns++) {
      const line = progressLine(state, rate, columns);
      assert.match(line, /^[\x20-\x7e█░≤]*$/);
      assert.ok(line.length + 2 < columns, `${line.length} of ${columns}: ${line}`);
    }
  }
});

test('the total is an upper bound until the plan is made, and the time left unknown until bytes come', () => {
  const line = progressLine({ ...STATE, receivedBytes: 0, exact: false }, 0, 120);
  assert.match(line, /^\[eta --\] ░{40} {2}0 B\/≤1\.2 GB {2}0 B\/s/);
});

test('a bar is full only when every byte is there, and never longer', () => {
  assert.equal(bar(999, 1000, 10), `${'█'.repeat(9)}░`);
  assert.equal(bar(1000, 1000, 10), '█'.repeat(10));
  assert.equal(bar(5000, 1000, 10), '█'.repeat(10));
  assert.equal(bar(0, 0, 10), '░'.repeat(10));
});
