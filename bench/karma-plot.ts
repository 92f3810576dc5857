/** Writes the picture of docs/karma.md: `npm run build && node dist/bench/karma-plot.js`. */
import { writeFileSync } from 'node:fs';
import { karmaCharts } from './karma-charts.js';

writeFileSync(new URL('../../docs/karma.svg', import.meta.url), karmaCharts());
