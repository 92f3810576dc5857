import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FetchSpanResult, FetchSpanTask, Task, WrongBytes } from '../../../src/pool/messages.js';
import { Fetcher, type SpanJob } from '../../../src/pull/fetcher.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';

const PACK = 'a'.repeat(32);
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
  } = {},
) {
  const { connections = 4, wrongOf = () => undefined, contentOf = () => 7 } = options;
  const asked: FetchSpanTask[] = [];
  const running = { now: 0, most: 0 };
  const fetchSpan = async (task: FetchSpanTask): Promise<FetchSpanResult> => {
    const at = wrongOf(task, asked.length);
    const content = contentOf(asked.length);
    asked.push(task);
    running.now += 1;
    running.most = Math.max(running.most, running.now);
    await Promise.resolve();
    running.now -= 1;
    const result = { pack: PACK, packOffset: task.tarStart, fetchedBytes: JOB_BYTES, requests: 1 };
    const goodTarBytes = (at ?? task.tarEnd) - task.tarStart;
    const whole = { ...result, goodTarBytes };
    return at === undefined ? whole : { ...whole, wrong: wrongAt(at, content) };
  };
  const support = fakePool(async (task: Task) => (task.task === 'name-content' ? 'a/path' : assert.fail()));
  const { context, events } = fakeContext({ connections, support });
  const fetcher = new Fetcher({
    context,
    startPool: async () => fakePool((task) => fetchSpan(task as FetchSpanTask)),
    layers: [fakeLayer()],
    pieceBytes: 1000,
  });
  return { fetcher, context, events, asked, running };
}

function wrongAt(at: number, content: number): WrongBytes {
  return { blobStart: at, tarStart: at, content, problem: `content ${content} is wrong at ${at}` };
}

/** `count` jobs, and a promise that resolves when the last byte of all is there. */
function jobsOf(count: number): { jobs: SpanJob[]; done: Promise<void>; parts: number[] } {
  const parts: number[] = [];
  let left = count * JOB_BYTES;
  let resolve = (): void => {};
  const done = new Promise<void>((all) => {
    resolve = all;
  });
  const onPart: SpanJob['onPart'] = ({ offset, lengthBytes }) => {
    parts.push(offset);
    left -= lengthBytes;
    if (left === 0) resolve();
  };
  const jobs = Array.from({ length: count }, (_, i) => {
    const [start, end] = [i * JOB_BYTES, (i + 1) * JOB_BYTES];
    return { layer: 0, blobStart: start, blobEnd: end, tarStart: start, tarEnd: end, onPart };
  });
  return { jobs, done, parts };
}

test('any number of spans is fetched in order, never more at a time than there are connections', async () => {
  const count = 200_000;
  const { fetcher, asked, running } = create({ connections: 5 });
  const { jobs, done } = jobsOf(count);
  fetcher.add(jobs);
  await done;
  assert.equal(running.most, 5);
  assert.equal(asked.length, count);
  assert.ok(asked.every(({ blobStart, sequence }, i) => blobStart === i * JOB_BYTES && sequence === i + 1));
  assert.deepEqual(fetcher.figures, [{ fetchedBytes: count * JOB_BYTES, requests: count }]);
});

test('a registry that told us to wait gets half as many at a time, and more again as they come well', async () => {
  const { fetcher, context, running } = create({ connections: 8 });
  context.concurrency.throttled(0);
  const first = jobsOf(5);
  fetcher.add(first.jobs);
  await first.done;
  assert.equal(running.most, 4);
  const many = jobsOf(100);
  fetcher.add(many.jobs);
  await many.done;
  assert.equal(running.most, 8);
});

test('what is added later goes behind what waits, and also when nothing waits', async () => {
  const { fetcher, asked } = create({ connections: 1 });
  const { jobs, done } = jobsOf(6);
  fetcher.add(jobs.slice(0, 3));
  fetcher.add(jobs.slice(3, 5));
  await new Promise(setImmediate);
  assert.equal(asked.length, 5);
  fetcher.add(jobs.slice(5));
  await done;
  assert.deepEqual(
    asked.map(({ blobStart }) => blobStart),
    [0, 100, 200, 300, 400, 500],
  );
});

test('what came wrong is fetched again from there, before all that waits', async () => {
  const { fetcher, asked, events } = create({
    connections: 2,
    wrongOf: ({ blobStart }, n) => (n < 2 ? blobStart + 40 : undefined),
  });
  const { jobs, done, parts } = jobsOf(4);
  fetcher.add(jobs);
  await done;
  assert.deepEqual(
    asked.map(({ blobStart }) => blobStart),
    [0, 100, 40, 140, 200, 300],
  );
  assert.ok(asked.every(({ blobEnd, tarEnd }) => blobEnd % JOB_BYTES === 0 && blobEnd === tarEnd));
  assert.deepEqual(parts, [0, 100, 40, 140, 200, 300]);
  assert.equal(events.filter(({ event }) => event === 'warning').length, 2);
});

test('the same place wrong twice ends the pull after one more request, naming the content', async () => {
  const { fetcher, context, asked } = create({ wrongOf: () => 40 });
  fetcher.add(jobsOf(1).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  assert.equal(context.stop.reason?.code, 'digest-mismatch');
  assert.match(String(context.stop.reason), /^PullError: a\/path does not match its digest.*twice$/);
});

test('eight places of one span may come wrong once each, nine may not', async () => {
  for (const places of [8, 9]) {
    const { fetcher, context, asked, events } = create({
      wrongOf: (_, n) => (n < places ? (n + 1) * 10 : undefined),
    });
    const { jobs, done } = jobsOf(1);
    fetcher.add(jobs);
    if (places === 8) await done;
    else await new Promise(setImmediate);
    assert.equal(asked.length, 9);
    assert.equal(context.stop.reason?.code, places === 8 ? undefined : 'digest-mismatch');
    assert.equal(events.filter(({ event }) => event === 'warning').length, 8);
  }
});

test('the places of one span do not count for another', async () => {
  const { fetcher, context, asked } = create({
    connections: 1,
    wrongOf: (_, n) => (n % 2 === 0 ? n * 50 + 40 : undefined),
  });
  const { jobs, done } = jobsOf(20);
  fetcher.add(jobs);
  await done;
  assert.equal(asked.length, 40);
  assert.equal(context.stop.reason, undefined);
});

test('bytes that cannot be decoded and a wrong content behind them are two places', async () => {
  const faults = [-1, 7, -1];
  const { fetcher, context, asked } = create({
    wrongOf: (_, n) => (n < faults.length ? 40 : undefined),
    contentOf: (n) => faults[n]!,
  });
  fetcher.add(jobsOf(1).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 3);
  assert.equal(context.stop.reason?.code, 'digest-mismatch');
});

test('nothing is asked for when the pull has stopped', async () => {
  const { fetcher, context, asked } = create({ connections: 1, wrongOf: () => 40 });
  fetcher.add(jobsOf(3).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  fetcher.add(jobsOf(3).jobs);
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  assert.ok(context.stop.reason !== undefined);
});
