import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Digest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import type { LayerTable } from '../../../src/format/layer-table.js';
import type { FetchSpanResult, FetchSpanTask, Task, WrongBytes } from '../../../src/pool/messages.js';
import { Fetcher, type FetchJob, type Work } from '../../../src/pull/fetcher.js';
import type { Stop } from '../../../src/pull/pull-context.js';
import { SpanFetch, type SpanRange } from '../../../src/pull/span-fetch.js';
import type { PackId } from '../../../src/store/paths.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';
import { tableOf } from '../../support/layer-tables.js';

const PACK = 'a'.repeat(32) as PackId;
/** Each job is so long in the blob, and as long in the tar. */
const JOB_BYTES = 100;

/**
 * A fetcher whose spans come from `wrongOf` instead of a network: what is wrong with the n-th request for a span,
 * counted from 0, if anything is.
 */
function create(
  options: {
    connections?: number;
    wrongOf?: (task: FetchSpanTask, n: number) => number | undefined;
    contentOf?: (n: number) => number;
    /** Whether an endpoint is left that has not sent anything wrong. */
    elsewhere?: () => boolean;
    /** Where the n-th request was stopped, if it was. */
    stoppedAt?: (n: number) => number | undefined;
    /** How long a request takes. */
    until?: (n: number) => Promise<void>;
    table?: LayerTable;
  } = {},
) {
  const { connections = 4, wrongOf = () => undefined, contentOf = () => 7 } = options;
  const { until = () => Promise.resolve(), elsewhere = () => false, stoppedAt = () => undefined } = options;
  const asked: FetchSpanTask[] = [];
  const running = { now: 0, most: 0 };
  const fetchSpan = async (task: FetchSpanTask): Promise<FetchSpanResult> => {
    const at = wrongOf(task, asked.length);
    const content = contentOf(asked.length);
    const stop = stoppedAt(asked.length);
    asked.push(task);
    running.now += 1;
    running.most = Math.max(running.most, running.now);
    await until(asked.length);
    running.now -= 1;
    const result = { pack: PACK, packOffset: task.tarStart, fetchedBytes: JOB_BYTES, requests: 1 };
    const goodTarBytes = (at ?? stop ?? task.tarEnd) - task.tarStart;
    const stopped = stop === undefined ? {} : { stopped: { blobEnd: stop, tarEnd: stop } };
    const whole = { ...result, goodTarBytes, ...stopped };
    return at === undefined
      ? whole
      : { ...whole, wrong: { ...wrongAt(at, content), elsewhere: elsewhere() } };
  };
  const support = fakePool(async (task: Task) => (task.task === 'name-content' ? 'a/path' : assert.fail()));
  const { context, events } = fakeContext({ connections, support });
  const fetcher = new Fetcher({
    context,
    startPool: async () => fakePool((task) => fetchSpan(task as FetchSpanTask)),
    layers: 1,
  });
  const work: Work = { layer: 0, dropped: false };
  const layer = fakeLayer();
  const { table = layer.metadata.table } = options;
  const failures: unknown[] = [];
  const failed = (error: unknown) => {
    failures.push(error);
    context.stop.now(error as PullError);
  };
  const spans = new SpanFetch({
    context,
    fetcher,
    layer: { ...layer, metadata: { ...layer.metadata, table } },
    work,
    pieceBytes: 1000,
    failed,
    wrote: () => {},
  });
  const add = (ranges: readonly SpanRange[]) =>
    fetcher.add(ranges.map((range): FetchJob => spans.job(range)));
  return { fetcher, add, work, failures, context, events, asked, running };
}

const DIGEST = `sha256:${'0'.repeat(64)}` as Digest;

function wrongAt(at: number, content: number): WrongBytes {
  const wrong = { blobStart: at, tarStart: at, content, problem: `content ${content} is wrong at ${at}` };
  return content < 0 ? wrong : { ...wrong, expected: DIGEST, actual: DIGEST };
}

/** `count` jobs, and a promise that resolves when the last byte of all is there. */
function jobsOf(count: number): { jobs: SpanRange[]; done: Promise<void>; parts: number[] } {
  const parts: number[] = [];
  let left = count * JOB_BYTES;
  let resolve = (): void => {};
  const done = new Promise<void>((all) => {
    resolve = all;
  });
  const onPart: SpanRange['onPart'] = ({ packOffset, lengthBytes }) => {
    parts.push(packOffset);
    left -= lengthBytes;
    if (left === 0) resolve();
  };
  const jobs = Array.from({ length: count }, (_, i) => {
    const [start, end] = [i * JOB_BYTES, (i + 1) * JOB_BYTES];
    return { blobStart: start, blobEnd: end, tarStart: start, tarEnd: end, onPart };
  });
  return { jobs, done, parts };
}

function codeOf({ reason }: Stop): string | undefined {
  return reason instanceof PullError ? reason.code : reason?.message;
}

test('any number of spans is fetched in order, never more at a time than there are connections', async () => {
  // More than a call takes arguments.
  const count = 130_000;
  const { fetcher, add, asked, running } = create({ connections: 5 });
  const { jobs, done } = jobsOf(count);
  add(jobs);
  await done;
  assert.equal(running.most, 5);
  assert.equal(asked.length, count);
  assert.ok(asked.every(({ blobStart }, i) => blobStart === i * JOB_BYTES));
  assert.deepEqual(fetcher.figures, [{ fetchedBytes: count * JOB_BYTES, requests: count }]);
});

test('a registry that asks to wait gets half as many requests at a time, and more again after successes', async () => {
  const until = () => new Promise<void>((resolve) => setImmediate(resolve));
  const { add, context, running } = create({ connections: 8, until });
  context.concurrency.throttled(0, 0);
  const first = jobsOf(5);
  add(first.jobs);
  await first.done;
  assert.equal(running.most, 4);
  const many = jobsOf(100);
  add(many.jobs);
  await many.done;
  assert.equal(running.most, 8);
});

test('jobs that are added later run after waiting ones, and also when none waits', async () => {
  const { add, asked } = create({ connections: 1 });
  const { jobs, done } = jobsOf(6);
  add(jobs.slice(0, 3));
  add(jobs.slice(3, 5));
  await new Promise(setImmediate);
  assert.equal(asked.length, 5);
  add(jobs.slice(5));
  await done;
  assert.deepEqual(
    asked.map(({ blobStart }) => blobStart),
    [0, 100, 200, 300, 400, 500],
  );
});

test('wrong bytes are fetched again from their offset on, before all waiting jobs', async () => {
  const { add, asked, events } = create({
    connections: 2,
    wrongOf: ({ blobStart }, n) => (n < 2 ? blobStart + 40 : undefined),
  });
  const { jobs, done, parts } = jobsOf(4);
  add(jobs);
  await done;
  assert.deepEqual(
    asked.map(({ blobStart }) => blobStart),
    [0, 100, 40, 140, 200, 300],
  );
  assert.ok(asked.every(({ blobEnd, tarEnd }) => blobEnd % JOB_BYTES === 0 && blobEnd === tarEnd));
  assert.deepEqual(parts, [0, 100, 40, 140, 200, 300]);
  assert.equal(events.filter(({ event }) => event === 'warning').length, 2);
});

test('an offset that is wrong twice ends the pull after one more request, with an error that names the content', async () => {
  const { add, context, asked } = create({ wrongOf: () => 40 });
  add(jobsOf(1).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  assert.equal(codeOf(context.stop), 'digest-mismatch');
  assert.match(String(context.stop.reason), /^PullError: a\/path does not match its digest.*twice$/);
});

test('a content that was wrong in this pull before is not requested again, except from another endpoint', async () => {
  for (const [checkContents, elsewhere, requests] of [
    ['first', [false], 2],
    ['again', [false], 1],
    ['again', [true, false], 2],
  ] as const) {
    const left = [...elsewhere];
    const { add, context, asked } = create({ wrongOf: () => 40, elsewhere: () => left.shift() ?? false });
    add(jobsOf(1).jobs.map((range) => ({ ...range, checkContents })));
    await new Promise(setImmediate);
    assert.equal(asked.length, requests);
    assert.ok(asked.every((task) => task.checkContents));
    assert.equal(codeOf(context.stop), 'digest-mismatch');
  }
});

test('eight offsets of one span may be wrong once each, nine may not', async () => {
  for (const places of [8, 9]) {
    const { add, context, asked, events } = create({
      wrongOf: (_, n) => (n < places ? (n + 1) * 10 : undefined),
    });
    const { jobs, done } = jobsOf(1);
    add(jobs);
    if (places === 8) await done;
    else await new Promise(setImmediate);
    assert.equal(asked.length, 9);
    assert.equal(codeOf(context.stop), places === 8 ? undefined : 'digest-mismatch');
    assert.equal(events.filter(({ event }) => event === 'warning').length, 8);
  }
});

test('wrong offsets of one span do not count for another', async () => {
  const { add, context, asked } = create({
    connections: 1,
    wrongOf: (_, n) => (n % 2 === 0 ? n * 50 + 40 : undefined),
  });
  const { jobs, done } = jobsOf(20);
  add(jobs);
  await done;
  assert.equal(asked.length, 40);
  assert.equal(context.stop.reason, undefined);
});

test('undecodable bytes and a wrong content at their offset count as two faults', async () => {
  const faults = [-1, 7, -1];
  const { add, context, asked } = create({
    wrongOf: (_, n) => (n < faults.length ? 40 : undefined),
    contentOf: (n) => faults[n]!,
  });
  add(jobsOf(1).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 3);
  assert.equal(codeOf(context.stop), 'digest-mismatch');
});

test('the remainder of a stopped span is fetched in parts, which are passed on in tar order', async () => {
  const half = 512 * 1024;
  const size = 8 * half;
  const contents = Array.from({ length: 8 }, (_, i) => ({
    name: i,
    blob: [i * half, (i + 1) * half] as const,
    tarStart: i * half,
    sizeBytes: half,
  }));
  const stops = new Map([
    [0, 2 * half],
    [3, 6 * half],
  ]);
  const { add, asked, events } = create({
    connections: 4,
    table: tableOf(contents, size, size),
    stoppedAt: (n) => stops.get(n),
    wrongOf: ({ blobStart }, n) => (n === 2 ? blobStart + 10 : undefined),
    // The later it was asked for, the sooner it comes.
    until: async (n) => {
      for (let turn = n; turn < 20; turn++) await new Promise(setImmediate);
    },
  });
  const told: number[] = [];
  await new Promise<void>((resolve) => {
    const onPart: SpanRange['onPart'] = ({ packOffset, lengthBytes }, last) => {
      if (lengthBytes > 0) told.push(packOffset);
      if (last) resolve();
    };
    add([{ blobStart: 0, blobEnd: size, tarStart: 0, tarEnd: size, onPart }]);
  });
  const starts = [0, 2, 4, 5, 6, 7].map((halves) => halves * half);
  starts.splice(3, 0, 4 * half + 10);
  assert.deepEqual(told, starts);
  const askedBytes = asked.reduce((sum, { blobStart, blobEnd }) => sum + blobEnd - blobStart, 0);
  const stopped = size - 2 * half + (7 * half - 6 * half);
  const wrong = half - 10;
  assert.equal(askedBytes, size + stopped + wrong);
  assert.equal(events.length, 1);
});

test('nothing is requested after the pull has stopped', async () => {
  const { add, context, asked } = create({ connections: 1, wrongOf: () => 40 });
  add(jobsOf(3).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  add(jobsOf(3).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  assert.ok(context.stop.reason !== undefined);
});

test('jobs of dropped work are not started, and their results are ignored', async () => {
  const { add, work, failures, asked } = create({ connections: 1, wrongOf: () => 40 });
  const { jobs, parts } = jobsOf(3);
  add(jobs);
  work.dropped = true;
  await new Promise(setImmediate);
  assert.equal(asked.length, 1);
  assert.deepEqual([parts, failures], [[], []]);
});
