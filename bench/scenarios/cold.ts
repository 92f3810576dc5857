import { availableParallelism } from 'node:os';
import { medianOf } from '../../src/measure/statistics.js';
import {
  type Bench,
  type ColdPull,
  coldPull,
  eachRun,
  recordWanted,
  wants,
  warnOfOthers,
} from '../context.js';
import { floorSeconds, runFloor } from '../floor.js';
import type { Floor } from '../floor-child.js';
import { blobBytes, tarBytes } from '../process.js';
import { treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** One turn: the floor, then a cold pull. */
interface Turn {
  readonly floor: Floor;
  readonly pull: ColdPull;
}

/** Rows 1, 2, 4, 5 and 7: cold pulls and the floor, in turns. */
export async function cold(bench: Bench): Promise<void> {
  if (!wants(bench, 1, 2, 4, 5, 7)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const turns: Turn[] = [];
  await withServer({ layout: sample.layoutDir }, async (server) => {
    for (const _ of eachRun(bench, 'floor and cold pull')) {
      const floor = await runFloor(bench, sample, server.host);
      turns.push({ floor, pull: await coldPull(bench, server, sample) });
    }
  });
  recordFloor(bench, turns);
  recordPull(bench, turns);
  const pulls = turns.map(({ pull }) => pull);
  if (turns.some((turn) => floorOf(turn) > turn.pull.cpuSeconds)) {
    bench.report.warn('the floor took more CPU than a pull: the machine was disturbed');
  }
  warnOfOthers(bench, pulls, 'during the cold pulls');
}

function recordFloor(bench: Bench, turns: readonly Turn[]): void {
  const part = (id: string, name: keyof Floor) => {
    const costs = turns.map(({ floor }) => floor[name]);
    const rates = costs.map(({ bytes, cpuSeconds }) => bytes / cpuSeconds / 1e9);
    const seconds = costs.map(({ cpuSeconds }) => cpuSeconds);
    recordWanted(bench, id, seconds, `${medianOf(rates).toFixed(2)} GB/s`);
  };
  part('1a', 'decode');
  part('1b', 'hash');
  part('1c', 'write');
  part('1d', 'receive');
  recordWanted(bench, '1e', turns.map(floorOf));
}

function floorOf({ floor, pull }: Turn): number {
  return floorSeconds(floor, tarBytes(pull.result));
}

function recordPull(bench: Bench, turns: readonly Turn[]): void {
  const record = (id: string, figure: (turn: Turn) => number, note = '') =>
    recordWanted(bench, id, turns.map(figure), note);
  const [{ pull }] = turns as [Turn];
  const size = `${(tarBytes(pull.result) / 2 ** 30).toFixed(2)} GiB, blob ${(blobBytes(pull.result) / 1e6).toFixed(0)} MB`;
  record('1', (turn) => turn.pull.cpuSeconds / floorOf(turn), size);
  record('1f', (turn) => turn.pull.cpuSeconds);
  record('1g', (turn) => turn.pull.serverSeconds);
  const ideal = medianOf(turns.map(idealSeconds));
  const note = `ideal ${ideal.toFixed(2)} s with the server's CPU`;
  record('2', (turn) => turn.pull.wallSeconds / idealSeconds(turn), note);
  record('2a', (turn) => turn.pull.wallSeconds);
  record('4', ({ pull: { result } }) => result.stages.prove.waitMs / result.durationMs);
  record('5', ({ pull: { result } }) => result.stages.mainThreadBusy);
  record('7', ({ pull: { result } }) => result.fetchedBytes / blobBytes(result));
}

/** All cores busy with nothing but the floor and the server, or one core hashing the largest layer: its hash cannot be split. */
function idealSeconds(turn: Turn): number {
  const { hash } = turn.floor;
  const largest = Math.max(...turn.pull.result.layers.map((layer) => layer.tarBytes));
  return Math.max(
    (floorOf(turn) + turn.pull.serverSeconds) / availableParallelism(),
    largest / (hash.bytes / hash.cpuSeconds),
  );
}
