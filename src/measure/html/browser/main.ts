import type { LineChart } from '../line-chart.js';
import { drawChart } from './draw.js';

/** Draws every chart into the element of its id, anew when the page changes between light and dark. */
function drawAll(charts: readonly LineChart[]): void {
  const drawn = charts.flatMap((chart) => {
    const place = document.getElementById(chart.id);
    return place === null ? [] : [drawChart(chart, place)];
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener(
    'change',
    () => {
      for (const { remove } of drawn) remove();
      drawAll(charts);
    },
    { once: true },
  );
}

drawAll(JSON.parse(document.getElementById('charts')?.textContent ?? '[]') as LineChart[]);
