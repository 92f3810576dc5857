import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { PullEvent, PullResult } from '../../../../src/api/pull.js';
import { StageRecorder } from '../../../../src/api/stages.js';
import { createPlainRenderer } from '../../../../src/cli/progress/plain-renderer.js';
import {
  createJsonRenderer,
  createRenderer,
  progressKind,
  summaryLine,
} from '../../../../src/cli/progress/renderer.js';

const QUIET = { verbose: false, debug: false };

const WRITTEN = { writtenBytes: 0, verifiedBytes: 0 };
const PROGRESS = { event: 'progress', receivedBytes: 5e5, totalBytes: 2e6, ...WRITTEN } as const;

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
  PROGRESS,
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
  return textOf(stream).split('\n').slice(0, -1);
}

/** Takes all that was written; from Node 26 on a read returns one chunk. */
function textOf(stream: PassThrough): string {
  let text = '';
  for (let chunk = stream.read(); chunk !== null; chunk = stream.read()) text += chunk;
  return text;
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
    'alpine: found 500.0 kB of an interrupted pull',
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

test('plain progress says where it is and what it waits for every five seconds, even when no event comes', (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] });
  const stream = new PassThrough();
  let now = 0;
  const renderer = createPlainRenderer(stream, QUIET, () => now);
  for (const event of EVENTS.slice(0, 3)) renderer.onEvent(event);
  now = 1000;
  renderer.onEvent(EVENTS[3]!);
  now = 3000;
  renderer.onEvent({ ...PROGRESS, receivedBytes: 15e5 });
  textOf(stream);
  context.mock.timers.tick(5000);
  now = 13_000;
  renderer.onEvent({ ...PROGRESS, receivedBytes: 15e5, silentMs: 10_000, givesUpMs: 22_000 });
  context.mock.timers.tick(5000);
  renderer.end();
  context.mock.timers.tick(10_000);
  assert.deepEqual(linesOf(stream), [
    'alpine: 1.5 MB/2.0 MB 75 %, 500.0 kB/s, eta 1s, fetching',
    'alpine: 1.5 MB/2.0 MB 75 %, 11.4 kB/s, fetching; nothing received for 10 s; giving up at 22 s, --patience',
  ]);
});

test('plain progress never shows more than the whole, nor a time that is over', (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] });
  const stream = new PassThrough();
  let now = 0;
  const renderer = createPlainRenderer(stream, QUIET, () => now);
  for (const event of EVENTS.slice(0, 3)) renderer.onEvent(event);
  now = 4000;
  renderer.onEvent({ ...PROGRESS, receivedBytes: 9e6 });
  textOf(stream);
  context.mock.timers.tick(5000);
  renderer.end();
  assert.match(linesOf(stream)[0]!, /^alpine: 2\.0 MB\/2\.0 MB 100 %, 2\.3 MB\/s, fetching$/);
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

test('bars need a terminal that moves its cursor; what was asked for otherwise is given', () => {
  assert.equal(progressKind({}, true, { TERM: 'xterm' }), 'tty');
  assert.equal(progressKind({}, false, { TERM: 'xterm' }), 'plain');
  assert.equal(progressKind({}, true, { TERM: 'dumb' }), 'plain');
  assert.equal(progressKind({ progress: 'tty' }, true, { TERM: 'dumb' }), 'plain');
  assert.equal(progressKind({ progress: 'tty' }, false, { TERM: 'xterm' }), 'plain');
  assert.equal(progressKind({ progress: 'json' }, true, { TERM: 'xterm' }), 'json');
  assert.equal(progressKind({ progress: 'tty', quiet: true }, true, { TERM: 'xterm' }), 'none');
});

test('on CI and with NO_COLOR lines are printed, unless bars are asked for', () => {
  for (const env of [{ CI: 'true' }, { CI: '1' }, { NO_COLOR: '1' }]) {
    assert.equal(progressKind({}, true, env), 'plain');
    assert.equal(progressKind({ progress: 'tty' }, true, env), 'tty');
  }
  for (const env of [{ CI: 'false' }, { CI: '' }, { NO_COLOR: '' }]) {
    assert.equal(progressKind({}, true, env), 'tty');
  }
});

test('a terminal that says it has no columns gets plain lines: ora would never end', async () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 0 });
  const renderer = await createRenderer({ progress: 'tty' }, stream as unknown as NodeJS.WriteStream);
  for (const event of EVENTS) renderer.onEvent(event);
  renderer.end(RESULT);
  assert.ok(linesOf(stream).every((line) => !line.includes('\u001b')));
});
