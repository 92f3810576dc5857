import { usableCores } from '../api/measure.js';
import type { MeasureOptions, ResolvedImage } from './context.js';
import type { Setting } from './pulls.js';

/** What a pull without options uses: `src/pull/pull-options.ts`. */
export const DEFAULT_CONNECTIONS = 16;
const MAX_DEFAULT_WORKERS = 16;

/** Numbers of connections that are tried while more of them still help. */
const CONNECTION_GRID = [1, 4, 8, DEFAULT_CONNECTIONS, 32] as const;

/** Settings to try. */
export interface Grid {
  readonly usual: Setting;
  readonly workers: readonly number[];
  connections: readonly number[];
  /** Whether the user named the connections. */
  readonly isGiven: boolean;
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
  };
}

/** The worker threads of a pull without options. */
export function defaultWorkersOf(cores: number): number {
  return Math.min(cores, MAX_DEFAULT_WORKERS);
}

/** All combinations where the user named workers and connections, else one list at the usual value of the other. */
export function settingsOf({ usual, workers, connections }: Grid, isProduct: boolean): Setting[] {
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

/** An upper bound of the bytes that all runs fetch. */
export function bytesToFetch(options: MeasureOptions, image: ResolvedImage, from?: ResolvedImage): number {
  const { stage, runs, against } = options;
  const grid = gridOf(options, image.isLocal);
  const settings = settingsOf(grid, isProduct(options)).length;
  const full = {
    network: stage === 'all' || stage === 'network' ? grid.connections.length * runs : 0,
    copy: stage === 'all' ? 1 : 0,
    pull: stage === 'all' || stage === 'pull' ? settings * runs : stage === 'export' ? 1 : 0,
    update: from !== undefined && (stage === 'all' || stage === 'update') ? runs : 0,
    peers: against.length > 0 && (stage === 'all' || stage === 'pull') ? (against.length + 1) * runs : 0,
  };
  if (image.isLocal) return 0;
  const times = Object.values(full).reduce((sum, number) => sum + number, 0);
  return times * image.blobBytes + (full.update > 0 ? from!.blobBytes : 0);
}

export function isProduct({ workers, connections }: MeasureOptions): boolean {
  return workers !== undefined && connections !== undefined;
}
