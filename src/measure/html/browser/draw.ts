import uPlot from 'uplot';
import type { LineChart } from '../line-chart.js';

const HEIGHT = 280;
const FONT = '12px system-ui, sans-serif';

/** Draws a chart that follows the width of `place`. The arrow keys move through its values. */
export function drawChart(chart: LineChart, place: HTMLElement): { remove(): void } {
  const plot = new uPlot(optionsOf(chart, place.clientWidth), dataOf(chart), place);
  const observer = new ResizeObserver(() => {
    if (place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  });
  observer.observe(place);
  const onKey = (event: KeyboardEvent) => moveCursor(plot, event);
  place.addEventListener('keydown', onKey);
  return {
    remove() {
      observer.disconnect();
      place.removeEventListener('keydown', onKey);
      plot.destroy();
    },
  };
}

/** The columns of uPlot: x, then for each series its values and, with a spread, the highest and the lowest. */
function dataOf({ x, series }: LineChart): uPlot.AlignedData {
  const columns = series.flatMap(({ values, spread }) =>
    spread === null ? [values] : [values, spread.high, spread.low],
  );
  return [x, ...columns].map((column) => [...column]) as uPlot.AlignedData;
}

function optionsOf(chart: LineChart, width: number): uPlot.Options {
  const { x, xTitle, yTitle, xScale } = chart;
  const axis = {
    stroke: color('--text'),
    font: FONT,
    labelFont: FONT,
    labelSize: 20,
    grid: { stroke: color('--line'), width: 1 },
    ticks: { stroke: color('--line'), width: 1 },
  };
  const isLog = xScale === 'log2';
  // Measured values alone, with some air at both ends.
  const around: uPlot.Range.MinMax = [x[0]! / 1.15, x.at(-1)! * 1.15];
  return {
    width,
    height: HEIGHT,
    scales: {
      x: isLog ? { time: false, distr: 3, log: 2, range: around } : { time: false },
      y: { range: (_, __, max) => [0, (max || 1) * 1.08] },
    },
    axes: [
      {
        ...axis,
        label: xTitle,
        ...(isLog && { splits: () => [...x], filter: (_: uPlot, splits: number[]) => splits }),
      },
      { ...axis, label: yTitle, size: 60 },
    ],
    cursor: { drag: { x: false, y: false } },
    ...seriesOf(chart),
  };
}

function seriesOf({ xTitle, series }: LineChart): Pick<uPlot.Options, 'series' | 'bands'> {
  const lines: uPlot.Series[] = [{ label: xTitle, value: (_, value) => text(value) }];
  const bands: uPlot.Band[] = [];
  for (const [i, { label, spread }] of series.entries()) {
    const stroke = color(`--series-${i}`);
    const common = { stroke, spanGaps: spread !== null, value: (_: uPlot, value: number) => text(value) };
    lines.push({ ...common, label, width: 2, points: { show: spread !== null, size: 7, fill: stroke } });
    if (spread === null) continue;
    bands.push({ series: [lines.length, lines.length + 1], fill: `${stroke}33` });
    for (const edge of ['highest', 'lowest']) {
      lines.push({ ...common, label: `${label}, ${edge}`, class: 'edge', width: 0, points: { show: false } });
    }
  }
  return { series: lines, bands };
}

function text(value: number | null | undefined): string {
  return value == null ? '–' : String(Number(value.toPrecision(4)));
}

/** A color of the style sheet as it is now, light or dark. */
function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const STEPS: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowRight: 1 };

function moveCursor(plot: uPlot, event: KeyboardEvent): void {
  const step = STEPS[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const x = plot.data[0];
  const next = Math.min(Math.max((plot.cursor.idx ?? (step < 0 ? x.length : -1)) + step, 0), x.length - 1);
  plot.setCursor({ left: plot.valToPos(x[next]!, 'x'), top: plot.over.clientHeight / 2 });
}
