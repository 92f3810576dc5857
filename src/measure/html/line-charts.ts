import { formatCount } from '../../format/figures.js';
import { find, medianRun, ofStage } from '../figures.js';
import type { Measurement, Report, Run } from '../report.js';
import type { LineChart, LineSeries } from './line-chart.js';
import { usualPull } from './usual-pull.js';

/** More would be finer than a phone can show, and a table of them longer than anybody reads. */
const MAX_INTERVALS = 100;
/** Timelines are recorded ten times a second. */
const MIN_INTERVAL_MS = 100;

/**
 * Draws the rate of the median pull over time, and that of the network alone with as many connections.
 */
export function throughputChart(report: Report): LineChart | undefined {
  const pull = usualPull(report);
  const network = pull && find(report, `network/c${pull.connections}`);
  const lines = [
    { label: pull?.name ?? '', timeline: timelineOf(pull) },
    { label: network?.name ?? '', timeline: timelineOf(network) },
  ].filter(({ timeline }) => timeline.length > 1);
  const endMs = Math.max(...lines.map(({ timeline }) => timeline.at(-1)![0]));
  if (lines.length === 0 || !(endMs > 0)) return undefined;
  const stepMs = Math.max(MIN_INTERVAL_MS, endMs / MAX_INTERVALS);
  const starts = Array.from({ length: Math.ceil(endMs / stepMs) }, (_, i) => i * stepMs);
  return {
    id: 'throughput',
    title: 'Throughput over time',
    xTitle: 'seconds since the run began',
    yTitle: 'MB/s',
    xScale: 'linear',
    x: starts.map((startMs) => (startMs + stepMs / 2) / 1000),
    series: lines.map(({ label, timeline }) => ({
      label,
      values: starts.map((startMs) => rateBetween(timeline, startMs, startMs + stepMs)),
      spread: null,
    })),
  };
}

type Timeline = NonNullable<Run['timeline']>;

/** From 0 bytes on; empty if none was recorded. */
function timelineOf(measurement: Measurement | undefined): Timeline {
  const timeline = measurement === undefined ? null : medianRun(measurement).timeline;
  return timeline == null || timeline.length === 0 ? [] : [[0, 0], ...timeline];
}

/** MB/s from `startMs` until `endMs` or the end of the run; null after it. */
function rateBetween(timeline: Timeline, startMs: number, endMs: number): number | null {
  const lastMs = Math.min(endMs, timeline.at(-1)![0]);
  if (lastMs <= startMs) return null;
  return (bytesAt(timeline, lastMs) - bytesAt(timeline, startMs)) / (lastMs - startMs) / 1000;
}

/** Bytes received until then; between two points of the timeline in proportion. */
function bytesAt(timeline: Timeline, atMs: number): number {
  const next = timeline.findIndex(([ms]) => ms >= atMs);
  const [afterMs, after] = timeline[next]!;
  const [beforeMs, before] = timeline[next - 1] ?? [afterMs, after];
  return afterMs === beforeMs
    ? after
    : before + ((after - before) * (atMs - beforeMs)) / (afterMs - beforeMs);
}

/** What more connections and more workers bring; those of which more than one number was measured. */
export function scalingCharts(report: Report): LineChart[] {
  const usual = usualPull(report);
  const pulls = ofStage(report, 'pull');
  const byConnections = [
    {
      label: `pull, ${formatCount(usual?.workers ?? 0, 'worker')}`,
      measurements: pulls.filter(({ workers }) => workers === usual?.workers),
    },
    { label: 'network alone', measurements: ofStage(report, 'network') },
  ];
  const byWorkers = [
    {
      label: `pull, ${formatCount(usual?.connections ?? 0, 'connection')}`,
      measurements: pulls.filter(({ connections }) => connections === usual?.connections),
    },
  ];
  return [
    scalingChart('connections', 'Throughput by connections', byConnections),
    scalingChart('workers', 'Throughput by workers', byWorkers),
  ].filter((chart) => chart.x.length > 1);
}

function scalingChart(
  by: 'connections' | 'workers',
  title: string,
  lines: readonly { label: string; measurements: readonly Measurement[] }[],
): LineChart {
  const found = lines.filter(({ measurements }) => measurements.some((each) => each[by] !== null));
  const numbers = found.flatMap(({ measurements }) => measurements.flatMap((each) => each[by] ?? []));
  const x = [...new Set(numbers)].sort((a, b) => a - b);
  const series = found.map(({ label, measurements }): LineSeries => {
    const rates = x.map((number) => measurements.find((each) => each[by] === number)?.bytesPerSecond);
    const column = (of: 'median' | 'min' | 'max') =>
      rates.map((rate) => (rate === undefined ? null : rate[of] / 1e6));
    return { label, values: column('median'), spread: { low: column('min'), high: column('max') } };
  });
  return { id: by, title, xTitle: by, yTitle: 'MB/s', xScale: 'log2', x, series };
}
