import { DEFAULT_CONNECTIONS, defaultWorkersOf, usableCores } from '../api/measure.js';
import type { MeasureOptions, ResolvedImage } from './context.js';
import type { Setting } from './pulls.js';
import type { Stage } from './report.js';

/** Numbers of connections that are tried while more of them still help. */
const CONNECTION_GRID = [1, 4, 8, DEFAULT_CONNECTIONS, 32] as const;

/** Settings to try. */
export interface Grid {
  readonly usual: Setting;
  readonly workers: readonly number[];
  connections: readonly number[];
  /** Whether the user named the connections. */
  readonly isGiven: boolean;
  /** Whether the user named workers as well, and so wants all combinations. */
  readonly isProduct: boolean;
}

/** The settings to try. `isLocal`: the image is on this machine, where connections change nothing. */
export function gridOf({ workers, connections }: MeasureOptions, isLocal: boolean): Grid {
  const defaultWorkers = defaultWorkersOf(usableCores());
  const usualOf = (list: readonly number[], preset: number) =>
    list.includes(preset) ? preset : Math.max(...list);
  const allWorkers = workers ?? [...new Set([1, defaultWorkers])];
  const allConnections = connections ?? (isLocal ? [DEFAULT_CONNECTIONS] : CONNECTION_GRID);
  return {
    usual: {
      workers: usualOf(allWorkers, defaultWorkers),
      connections: usualOf(allConnections, DEFAULT_CONNECTIONS),
    },
    workers: allWorkers,
    connections: allConnections,
    isGiven: connections !== undefined,
    isProduct: workers !== undefined && connections !== undefined,
  };
}

/** All combinations where the user named workers and connections, else one list at the usual value of the other. */
export function settingsOf({ usual, workers, connections, isProduct }: Grid): Setting[] {
  const all = workers.flatMap((each) =>
    connections.map((number) => ({ workers: each, connections: number })),
  );
  const isUsual = (setting: Setting) =>
    setting.workers === usual.workers && setting.connections === usual.connections;
  return all
    .filter(
      (setting) =>
        isProduct || setting.workers === usual.workers || setting.connections === usual.connections,
    )
    .map((setting) => (isUsual(setting) ? usual : setting));
}

/** Whether a benchmark of this stage has a part. */
export function isPart(stage: Stage, part: Stage): boolean {
  return stage === 'all' || stage === part;
}

/** An upper bound of the bytes that all runs fetch. */
export function bytesToFetch(
  { stage, runs, against }: MeasureOptions,
  grid: Grid,
  image: ResolvedImage,
  from?: ResolvedImage,
): number {
  if (image.isLocal) return 0;
  const times = {
    network: isPart(stage, 'network') ? grid.connections.length * runs : 0,
    copy: stage === 'all' ? 1 : 0,
    pull: isPart(stage, 'pull') ? settingsOf(grid).length * runs : stage === 'export' ? 1 : 0,
    update: from !== undefined && isPart(stage, 'update') ? runs : 0,
    peers: against.length > 0 && isPart(stage, 'pull') ? (against.length + 1) * runs : 0,
  };
  const all = Object.values(times).reduce((sum, number) => sum + number, 0);
  return all * image.blobBytes + (times.update > 0 ? from!.blobBytes : 0);
}
