import { measureNetwork } from '../api/measure.js';
import { formatCount } from '../format/figures.js';
import { doubtsOfNetwork } from './command.js';
import { type Context, NO_SETTING } from './context.js';
import { type Grid, settingsOf } from './grid.js';
import { pullId, type Setting } from './pulls.js';
import type { Finding, Subject } from './recorder.js';

/** More connections help as long as they receive more than this share more. */
const MIN_GROWTH = 0.05;

export function networkId(connections: number): string {
  return `network/c${connections}`;
}

/** Fetches the image into nothing, with more and more connections while they help. */
export async function measureNetworks(context: Context, grid: Grid): Promise<void> {
  const { image, recorder, options } = context;
  if (image.isLocal) return recorder.doubt('no network was measured: the image is on this machine');
  const { workers } = grid.usual;
  const subjectOf = (connections: number): Subject => ({
    ...NO_SETTING,
    id: networkId(connections),
    stage: 'network',
    name: `network, ${formatCount(connections, 'connection')}`,
    workers,
    connections,
  });
  const runOf = (connections: number) => () => networkRun(context, { workers, connections });
  const useful: number[] = [];
  let isGrowing = true;
  for (const connections of grid.connections) {
    if (!isGrowing && !grid.isGiven && connections !== grid.usual.connections) {
      context.expect([networkId(connections)], 0);
      continue;
    }
    const previous = recorder.find(networkId(useful.at(-1) ?? 0))?.bytesPerSecond.median ?? 0;
    if (!(await context.measure(subjectOf(connections), runOf(connections)))) continue;
    useful.push(connections);
    const now = recorder.find(networkId(connections))!.bytesPerSecond.median;
    isGrowing &&= now > previous * (1 + MIN_GROWTH);
  }
  if (!grid.isGiven && useful.length > 0) {
    const pulls = settingsOf(grid);
    grid.connections = useful;
    const remaining = settingsOf(grid).map(pullId);
    context.expect(
      pulls.map(pullId).filter((id) => !remaining.includes(id)),
      0,
    );
  }
  const others = useful.map((connections) => ({ subject: subjectOf(connections), run: runOf(connections) }));
  await context.inTurns(others, options.runs - 1);
}

async function networkRun({ image, options }: Context, setting: Setting): Promise<Finding> {
  const { pull, signal } = options;
  let waits = 0;
  const { bytes, durationMs, misses, timeline, stages } = await measureNetwork(image.pinned, {
    ...pull,
    ...setting,
    store: image.seed,
    signal,
    onEvent: ({ event }) => {
      if (event === 'waiting') waits += 1;
    },
  });
  return {
    wallSeconds: durationMs / 1000,
    bytes,
    cpuSeconds: stages.cpuSeconds,
    peakMemoryBytes: null,
    stages,
    timeline,
    doubts: doubtsOfNetwork(waits, misses),
  };
}
