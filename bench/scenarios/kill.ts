import { runCommand } from '../../src/measure/command.js';
import { createPrng } from '../../src/sandbox/sample-content.js';
import { type Bench, coldPull, recordWanted, wants, withStore } from '../context.js';
import { blobBytes, type PullJob, pullWords, runPull, stop, ZPULL } from '../process.js';
import { formatFigure, ROWS } from '../rows.js';
import { type Sample, treeSample } from '../sample.js';
import { type Server, withServer } from '../server.js';

const KILLS = 10;
/** Fewer on the slow link: each takes seconds and they differ little. */
const SLOW_KILLS = 5;
const SLOW_LINK_BYTES = 2e6;
/** Between these the slow pull is killed: after its metadata, well before its end. */
const SLOW_FROM_MS = 3000;
const SLOW_TO_MS = 12_000;

/** Bytes that a killed pull had received: by what it told last, and that plus what the rate till then makes of the rest. */
interface Received {
  readonly toldBytes: number;
  readonly likelyBytes: number;
}

/** Bytes that the first process had received and the second asked for again; undefined when the second one failed. */
type Outcome = Received | undefined;

/** An undisturbed pull. */
interface Whole {
  readonly wallMs: number;
  /** A little less than the blobs: the footers, for one, are not fetched. */
  readonly fetchedBytes: number;
  readonly blobBytes: number;
}

/** Row 11: pulls that are killed at random moments, each followed by one that goes on. */
export async function kill(bench: Bench): Promise<void> {
  if (!wants(bench, 11)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const prng = createPrng(bench.options.seed, 0);
  await withServer({ layout: sample.layoutDir }, async (fast) => {
    const whole = await wholePull(bench, sample, fast);
    const kills = { bench, sample, whole, second: fast };
    const outcomes = await killTimes(KILLS, {
      ...kills,
      first: fast,
      moment: () => prng.unit() * whole.wallMs,
    });
    const slow = await withServer({ layout: sample.layoutDir, rateBytes: SLOW_LINK_BYTES }, (first) =>
      killTimes(SLOW_KILLS, {
        ...kills,
        first,
        moment: () => SLOW_FROM_MS + prng.unit() * (SLOW_TO_MS - SLOW_FROM_MS),
      }),
    );
    record(bench, outcomes, slow, whole);
  });
}

async function wholePull(bench: Bench, sample: Sample, server: Server): Promise<Whole> {
  const { result, wallSeconds } = await coldPull(bench, server, sample);
  return {
    wallMs: wallSeconds * 1000,
    fetchedBytes: result.fetchedBytes,
    blobBytes: blobBytes(result),
  };
}

interface Kills {
  readonly bench: Bench;
  readonly sample: Sample;
  readonly whole: Whole;
  readonly first: Server;
  /** Need not be as slow as the first: only the bytes of the second pull count. */
  readonly second: Server;
  /** After how many milliseconds the next kill comes. */
  readonly moment: () => number;
}

async function killTimes(times: number, kills: Kills): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  while (outcomes.length < times) {
    process.stderr.write(`kill ${outcomes.length + 1} of ${times}\n`);
    await withStore(kills.bench, async (store) => {
      const received = await killedPull({ ...kills.first, ...kills.sample, store }, kills.moment());
      // A pull that ended before its moment is done over, with another moment.
      if (received === undefined) return;
      outcomes.push(await goOn({ ...kills.second, ...kills.sample, store }, received, kills.whole));
    });
  }
  return outcomes;
}

/** Undefined when the pull ended before it could be killed. */
async function killedPull(job: PullJob, afterMs: number): Promise<Received | undefined> {
  const killer = new AbortController();
  let last = { bytes: 0, atMs: 0 };
  let rate = 0;
  let killedMs = 0;
  const startedMs = performance.now();
  const timer = setTimeout(() => {
    killedMs = performance.now() - startedMs;
    killer.abort();
  }, afterMs);
  try {
    await runCommand([ZPULL, ...pullWords(job), '--json', '--progress', 'json'], {
      signal: AbortSignal.any([stop.signal, killer.signal]),
      onEvent: ({ receivedBytes: bytes }, atMs) => {
        if (typeof bytes !== 'number') return;
        rate = (bytes - last.bytes) / (atMs - last.atMs);
        last = { bytes, atMs };
      },
    });
    return undefined;
  } catch (error) {
    if (!killer.signal.aborted) throw error;
    return { toldBytes: last.bytes, likelyBytes: last.bytes + rate * Math.max(0, killedMs - last.atMs) };
  } finally {
    clearTimeout(timer);
  }
}

async function goOn({ host, ref, store }: PullJob, received: Received, whole: Whole): Promise<Outcome> {
  try {
    const { result } = await runPull({ host, ref, store });
    const lost = (bytes: number) => bytes + result.fetchedBytes - whole.fetchedBytes;
    return { toldBytes: lost(received.toldBytes), likelyBytes: lost(received.likelyBytes) };
  } catch (error) {
    stop.signal.throwIfAborted();
    process.stderr.write(`${String(error)}\n`);
    return undefined;
  }
}

function record(bench: Bench, fast: readonly Outcome[], slow: readonly Outcome[], whole: Whole): void {
  const all = [...fast, ...slow];
  const failed = all.filter((outcome) => outcome === undefined).length;
  recordWanted(bench, '11a', [failed], `of ${all.length}, seed ${bench.options.seed}`);
  recordWorst(bench, '11b', fast, (bytes) => bytes / whole.blobBytes);
  recordWorst(bench, '11c', slow, (bytes) => bytes);
}

function recordWorst(
  bench: Bench,
  id: string,
  outcomes: readonly Outcome[],
  figure: (bytes: number) => number,
): void {
  const known = outcomes.filter((outcome) => outcome !== undefined);
  if (known.length === 0) return;
  const { unit } = ROWS.find((row) => row.id === id)!;
  const likely = Math.max(...known.map(({ likelyBytes }) => figure(likelyBytes)));
  const note = `with what came after the last counter, by rate: ${formatFigure(likely, unit)}`;
  bench.report.record(id, { runs: known.map(({ toldBytes }) => figure(toldBytes)), by: 'worst', note });
}
