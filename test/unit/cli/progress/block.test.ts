import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerProgress, LayerState } from '../../../../src/api/pull.js';
import { bar, blockLines, summaryFor, wrapped } from '../../../../src/cli/progress/block.js';
import { INITIAL_STATE, type ProgressState } from '../../../../src/cli/progress/state.js';

function layer(number: number, state: LayerState, more: Partial<LayerProgress> = {}): LayerProgress {
  const digest = `sha256:${number.toString(16).padStart(64, '0').split('').toReversed().join('')}`;
  const figures = { receivedBytes: 0, totalBytes: 45_600_000, reusedBytes: 0, resumedBytes: 0 };
  return { digest, state, sizeBytes: 45_600_000, ...figures, ...more };
}

function stateOf(layers: readonly LayerProgress[], more: Partial<ProgressState> = {}): ProgressState {
  return {
    ...INITIAL_STATE,
    image: 'docker.io/library/debian:12',
    platform: 'linux/amd64',
    receivedBytes: 412_300_000,
    totalBytes: 1_200_000_000,
    exact: true,
    layers: new Map(layers.map((one) => [one.digest, one])),
    step: 'fetching',
    firstByteMs: 0,
    lastByteMs: 10_000,
    ...more,
  };
}

const STATE = stateOf([
  layer(1, 'reused'),
  layer(2, 'done', { reusedBytes: 3_000_000 }),
  layer(3, 'verifying', { receivedBytes: 45_600_000 }),
  layer(4, 'fetching', { receivedBytes: 22_800_000, resumedBytes: 1_500_000, reusedBytes: 2_500_000 }),
  layer(5, 'shared'),
  layer(6, 'waiting'),
]);

const at = (columns: number, rows = 24, state = STATE) =>
  blockLines(state, 98_100_000, 10_000, { columns, rows });

const full = (cells: number) => '█'.repeat(cells);
const half = (cells: number) => '█'.repeat(Math.floor(cells / 2)) + '░'.repeat(Math.ceil(cells / 2));

test('at 120 columns a block has the name, a line a layer with all notes, and the total', () => {
  assert.deepEqual(at(120), [
    'docker.io/library/debian:12  linux/amd64',
    '  100000000000  reused     45.6 MB',
    '  200000000000  done       45.6 MB  reused 3.0 MB',
    `  300000000000  verifying  ${full(30)}  45.6 MB/45.6 MB`,
    `  400000000000  fetching   ${half(30)}  22.8 MB/45.6 MB    reused 2.5 MB, resumed 1.5 MB`,
    '  500000000000  shared with another process  45.6 MB',
    '  600000000000  waiting    45.6 MB',
    `  ${full(10)}${'░'.repeat(20)}  412.3 MB/1.2 GB  98.1 MB/s  eta 8s  2/6 layers`,
  ]);
});

test('at 80 columns bars are shorter and one note stays', () => {
  assert.deepEqual(at(80).slice(3, 6), [
    `  300000000000  verifying  ${full(15)}  45.6 MB/45.6 MB`,
    `  400000000000  fetching   ${half(15)}  22.8 MB/45.6 MB    resumed 1.5 MB`,
    '  500000000000  shared with another process  45.6 MB',
  ]);
  assert.equal(
    at(80).at(-1),
    `  ${full(5)}${'░'.repeat(11)}  412.3 MB/1.2 GB  98.1 MB/s  eta 8s  2/6 layers`,
  );
});

test('at 60 columns notes go, bars and sizes stay', () => {
  assert.deepEqual(at(60).slice(3), [
    `  300000000000  verifying  ${full(13)}  45.6 MB/45.6 MB`,
    `  400000000000  fetching   ${half(13)}  22.8 MB/45.6 MB`,
    '  500000000000  shared with another process  45.6 MB',
    '  600000000000  waiting    45.6 MB',
    `  ${full(4)}${'░'.repeat(10)}  412.3 MB/1.2 GB  98.1 MB/s  eta 8s`,
  ]);
});

test('no line reaches the last column, and there is a row left, whatever there is to say', () => {
  const long = `registry.example.com:5000/${'a/'.repeat(60)}name@sha256:${'d'.repeat(64)}`;
  const worst: readonly ProgressState[] = [
    STATE,
    stateOf([], {
      failure: 'x'.repeat(500),
      image: 'oci:/大きさ',
      wait: { host: 'h'.repeat(90), untilMs: 5e7 },
    }),
    stateOf([layer(1, 'fetching', { receivedBytes: 999_949_000, totalBytes: 999_949_000_000_000 })], {
      image: long,
      failure: 'connection to\u001b[2J registry.example.com was reset by the other side after some bytes',
      silence: { fromMs: 0, givesUpMs: 71_000 },
      sharedFromMs: 0,
    }),
    stateOf(
      Array.from({ length: 127 }, (_, i) => layer(i, (['fetching', 'waiting', 'done'] as const)[i % 3]!)),
    ),
    { ...INITIAL_STATE, image: long, step: 'resolving' },
    INITIAL_STATE,
  ];
  for (const [i, state] of worst.entries()) {
    for (let columns = 20; columns <= 200; columns += columns < 60 ? 1 : 7) {
      for (const rows of [6, 24]) {
        const lines = at(columns, rows, state);
        assert.ok(lines.length < rows, `${i}: ${lines.length} lines of ${rows}`);
        for (const [row, line] of lines.entries()) {
          assert.match(line, /^[\x20-\x7e█░…]*$/);
          assert.ok(line.length + (row === 0 ? 2 : 0) < columns, `${i}, ${columns} columns: ${line}`);
        }
      }
    }
  }
});

test('nothing is cut within a word', () => {
  const failure = 'connection to registry.example.com was reset by the other side after 12 bytes';
  const words = new Set(`retrying: ${failure}`.split(' '));
  for (let columns = 40; columns < 90; columns++) {
    const line = at(columns, 24, stateOf([], { failure })).at(-1)!.trim();
    const kept = line.replace(/ …$/, '').split(' ');
    assert.ok(kept.every((word) => words.has(word)) && kept.length >= 3, line);
  }
});

test('a long name loses the platform, the end of a digest, and what is above it, in this order', () => {
  const image = `registry.example.com/team/service/name:1.2@sha256:${'d'.repeat(64)}`;
  const headings = [140, 130, 80, 60, 40].map((columns) => at(columns, 24, stateOf([], { image }))[0]);
  const short = `name:1.2@sha256:${'d'.repeat(12)}`;
  assert.deepEqual(headings, [
    `${image}  linux/amd64`,
    `${image}  linux/amd64`,
    `registry.example.com/team/service/${short}`,
    `…/team/service/${short}`,
    `…/${short}`,
  ]);
});

test('the line that stays of an image fits, and tells of the image in any case', () => {
  const texts = ['fetched 15.2 MB in 43 requests; verified in 9.3 s', 'fetched 15.2 MB; verified in 9.3 s'];
  const image = 'registry.example.com/team/name:1.2';
  const lines = [120, 80, 60, 40].map((columns) => summaryFor(image, texts, columns));
  assert.deepEqual(lines, [
    `${image}: ${texts[0]}`,
    `${image}: ${texts[1]}`,
    `…/team/name:1.2: ${texts[1]}`,
    `…/name:1.2: fetched 15.2 MB; verified …`,
  ]);
});

test('layers that do not fit are summed up, and those that do something keep their lines', () => {
  const many = Array.from({ length: 40 }, (_, i) =>
    layer(i, i < 12 ? 'reused' : i < 20 ? 'done' : i === 30 ? 'verifying' : i < 28 ? 'fetching' : 'waiting'),
  );
  const lines = at(80, 12, stateOf(many));
  assert.equal(lines.length, 11);
  assert.equal(lines.filter((line) => line.includes('fetching')).length, 8);
  assert.equal(lines.at(-2), '  32 more: 1 verifying, 11 waiting, 8 done, 12 reused');
  const waiting = Array.from({ length: 40 }, (_, i) => layer(i, 'waiting'));
  assert.equal(at(80, 12, stateOf(waiting)).at(-2), '  32 more waiting');
  const [, only] = at(80, 4, stateOf(many));
  assert.equal(only, '  40 layers: 8 fetching, 1 verifying, 11 waiting, 8 done, 12 reused');
});

test('before the plan there is no bar, no eta and no nought of nought', () => {
  const resolving = { ...INITIAL_STATE, image: 'docker.io/library/debian:12', step: 'resolving' };
  assert.deepEqual(blockLines(resolving, 0, 0, { columns: 80, rows: 24 }), [
    'docker.io/library/debian:12',
    '  resolving',
  ]);
  const begun = stateOf([layer(1, 'waiting')], { receivedBytes: 0, firstByteMs: undefined });
  assert.equal(
    blockLines(begun, 0, 10_000, { columns: 80, rows: 24 }).at(-1),
    `  ${'░'.repeat(16)}  0 B/1.2 GB  0/1 layer`,
  );
});

test('a bar is full only when every byte is there, and never longer', () => {
  assert.equal(bar(999, 1000, 10), `${'█'.repeat(9)}░`);
  assert.equal(bar(1000, 1000, 10), '█'.repeat(10));
  assert.equal(bar(5000, 1000, 10), '█'.repeat(10));
});

test('lines above a block break between words, and a word that is too long stays whole', () => {
  const message = 'warning: example.com asks to wait and says "try again later"';
  assert.equal(wrapped(message, 120), message);
  assert.equal(wrapped(message, 40), 'warning: example.com asks to wait and\nsays "try again later"');
  assert.equal(wrapped(`layer ${'d'.repeat(50)} is bad`, 40), `layer\n${'d'.repeat(50)}\nis bad`);
});
