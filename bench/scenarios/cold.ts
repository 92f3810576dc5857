import { availableParallelism } from 'node:os';
import { type Bench, eachRun, newPath, recordWanted, wants, withStore } from '../context.js';
import { floorSeconds, runFloor } from '../floor.js';
import type { Floor } from '../floor-child.js';
import { MachineLoad } from '../machine-load.js';
import { blobBytes, type PullRun, runPull, tarBytes } from '../pull-process.js';
import { type Sample, treeSample } from '../sample.js';
import { type Server, withServer } from '../server.js';
import { median } from '../statistics.js';
import type { Cost } from '../stopwatch.js';

/** One turn: the floor, then a cold pull. */
interface Turn {
  readonly floor: Floor;
  readonly pull: PullRun;
  /** CPU seconds of the server during the pull. */
  readonly serverSeconds: number;
}

/** Rows 1, 2, 4, 5 and 7: cold pulls and the floor, in turns. */
export async function cold(bench: Bench): Promise<void> {
  if (!wants(bench, 1, 2, 4, 5, 7)) return;
  const sample = await treeSample(bench.options.workDir, bench.options.files, 1);
  const turns: Turn[] = [];
  const load = new MachineLoad();
  await withServer({ layout: sample.layoutDir }, async (server) => {
    for (const _ of eachRun(bench, 'floor and cold pull')) {
      const floor = await runFloor({
        sample,
        host: server.host,
        directory: newPath(bench),
        files: availableParallelism(),
      });
      turns.push(await coldPull(bench, sample, server, floor, load));
    }
  });
  recordFloor(bench, turns);
  recordPull(bench, turns);
  doubt(bench, turns, load);
}

async function coldPull(
  bench: Bench,
  sample: Sample,
  server: Server,
  floor: Floor,
  load: MachineLoad,
): Promise<Turn> {
  return withStore(bench, async (store) => {
    const before = await server.cpuSeconds();
    load.start();
    const pull = await runPull({ host: server.host, ref: sample.ref, store });
    const serverSeconds = (await server.cpuSeconds()) - before;
    load.stop(pull.cpuSeconds + serverSeconds);
    return { floor, pull, serverSeconds };
  });
}

function recordFloor(bench: Bench, turns: readonly Turn[]): void {
  const part = (id: string, cost: (floor: Floor) => Cost) => {
    const rates = turns.map(({ floor }) => cost(floor).bytes / cost(floor).cpuSeconds / 1e9);
    const seconds = turns.map(({ floor }) => cost(floor).cpuSeconds);
    recordWanted(bench, id, seconds, `${median(rates).toFixed(2)} GB/s`);
  };
  part('1a', (floor) => floor.decode);
  part('1b', (floor) => floor.hash);
  part('1c', (floor) => floor.write);
  part('1d', (floor) => floor.receive);
  const sums = turns.map(({ floor }) => floorSeconds(floor));
  recordWanted(bench, '1e', sums);
}

function recordPull(bench: Bench, turns: readonly Turn[]): void {
  const record = (id: string, figure: (turn: Turn) => number, note = '') =>
    recordWanted(bench, id, turns.map(figure), note);
  const [{ pull }] = turns as [Turn];
  const size = `${(tarBytes(pull.result) / 2 ** 30).toFixed(2)} GiB, blob ${(blobBytes(pull.result) / 1e6).toFixed(0)} MB`;
  record('1', (turn) => turn.pull.cpuSeconds / floorSeconds(turn.floor), size);
  record('1f', (turn) => turn.pull.cpuSeconds);
  record('1g', (turn) => turn.serverSeconds);
  const ideal = turns.map((turn) => idealSeconds(turn));
  record(
    '2',
    (turn) => turn.pull.wallSeconds / idealSeconds(turn),
    `ideal ${median(ideal).toFixed(2)} s with the server's CPU`,
  );
  record('2a', (turn) => turn.pull.wallSeconds);
  record('4', ({ pull: { result } }) => result.stages.prove.waitMs / result.durationMs);
  record('5', ({ pull: { result } }) => result.stages.mainThreadBusy);
  record('7', ({ pull: { result } }) => result.fetchedBytes / blobBytes(result));
}

/** All cores busy with nothing but the floor and the server, or one core hashing the largest layer: its hash cannot be split. */
function idealSeconds({ floor, serverSeconds, pull }: Turn): number {
  const { bytes, cpuSeconds } = floor.hash;
  const largest = Math.max(...pull.result.layers.map((layer) => layer.tarBytes));
  return Math.max(
    (floorSeconds(floor) + serverSeconds) / availableParallelism(),
    largest / (bytes / cpuSeconds),
  );
}

function doubt({ report }: Bench, turns: readonly Turn[], load: MachineLoad): void {
  if (turns.some(({ floor, pull }) => floorSeconds(floor) > pull.cpuSeconds)) {
    report.warn('the floor took more CPU than a pull: the machine was disturbed');
  }
  load.warn(report, 'during the cold pulls');
}
