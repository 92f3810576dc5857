import { fewestBytes, REFUSED, SILENT, secondsUntilGivenUp } from './karma-figures.js';
import { type Chart, drawCharts } from './svg-chart.js';

const CONNECTIONS = 16;

/** What many programs do: three more tries of a request, after 1, 2 and 4 seconds. */
const FIXED_SECONDS = 1 + 2 + 4;
const FIXED_TRIES = 4;

/** The most that one request fetches: a program that counts failures of a request must receive it within its tries. */
const RANGE_BYTES = 8 * 1024 * 1024;

const KARMA = '#0a5fb4';
const FIXED = '#c2410c';

/** The picture of docs/karma.md, from the karma that pulls use. */
export function karmaCharts(): string {
  return drawCharts('Karma and three retries compared', [patience(), failingLink()]);
}

/** How long a network that has died is waited for, by how fast it was. */
function patience(): Chart {
  const rates = powers(0, 9, 8);
  const silentFixed = SILENT.firstMissMs / 1000 + FIXED_SECONDS + (3 * SILENT.tryMs) / 1000;
  return {
    title: 'A network dies: seconds until it is given up',
    x: {
      label: 'bytes a second before',
      scale: 'powers',
      ticks: [
        [1, '1'],
        [1e3, '1 kB'],
        [1e6, '1 MB'],
        [1e9, '1 GB'],
      ],
    },
    y: { label: 'seconds', scale: 'even', ticks: [0, 10, 20, 30, 40].map((value) => [value, String(value)]) },
    curves: [
      {
        label: 'karma, connections refused',
        colour: KARMA,
        points: rates.map((rate) => [rate, secondsUntilGivenUp(rate, CONNECTIONS, REFUSED)]),
        labelAt: [1.5e4, 4],
      },
      {
        label: 'karma, no answer',
        colour: KARMA,
        dashed: true,
        points: rates.map((rate) => [rate, secondsUntilGivenUp(rate, CONNECTIONS, SILENT)]),
        labelAt: [2, 12],
      },
      {
        label: '3 retries, connections refused',
        colour: FIXED,
        points: [
          [1, FIXED_SECONDS],
          [1e9, FIXED_SECONDS],
        ],
        labelAt: [1.5, 8],
      },
      {
        label: '3 retries, no answer',
        colour: FIXED,
        dashed: true,
        points: [
          [1, silentFixed],
          [1e9, silentFixed],
        ],
        labelAt: [1.5, 33],
      },
    ],
  };
}

/** Which links that fail again and again are gone on with. */
function failingLink(): Chart {
  const seconds = powers(-1, 2, 16);
  return {
    title: 'A link keeps failing: what is gone on with, to the right',
    x: {
      label: 'bytes received between two failures',
      scale: 'powers',
      ticks: [
        [0.1, ''],
        [1, '1'],
        [1e3, '1 kB'],
        [1e6, '1 MB'],
        [1e8, '100 MB'],
      ],
    },
    y: {
      label: 'seconds between two failures',
      scale: 'powers',
      ticks: [0.1, 1, 10, 100].map((value) => [value, String(value)]),
    },
    curves: [
      {
        label: 'karma',
        colour: KARMA,
        points: seconds.map((between) => [fewestBytes(between), between]),
        labelAt: [20, 3],
      },
      {
        label: '3 retries',
        colour: FIXED,
        points: [
          [RANGE_BYTES / FIXED_TRIES, 0.1],
          [RANGE_BYTES / FIXED_TRIES, 100],
        ],
        labelAt: [3e6, 3],
      },
    ],
  };
}

function powers(from: number, to: number, steps: number): number[] {
  const count = (to - from) * steps;
  return Array.from({ length: count + 1 }, (_, i) => 10 ** (from + i / steps));
}
