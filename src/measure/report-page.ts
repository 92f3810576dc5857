import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { formatBytes, formatCount, formatRate } from '../format/figures.js';
import { DoubtNotes } from './doubt-notes.js';
import { comparisonFigure, sharesFigure, stagesFigure } from './html/bars.js';
import { scalingCharts, throughputChart } from './html/line-charts.js';
import { Html, html, jsonHtml } from './html/markup.js';
import { lineFigure, measurementsTable } from './html/tables.js';
import type { Report, Verdict } from './report.js';
import { settingSentences } from './verdict-text.js';

/**
 * What the page draws with: uPlot and our code around it (src/measure/html/browser). Files, not part of
 * the bundle: each start of the command would compile them. They are as far from here as from the bundle.
 */
const ASSETS = new URL('../../bundle/page/', import.meta.url);

/**
 * The report as one page of HTML that needs no other file and no network. All of its figures are in
 * tables, too. A content security policy allows the page's own script and style alone.
 */
export function reportPage(report: Report): string {
  const script = readFileSync(new URL('page.js', ASSETS), 'utf8');
  const style = readFileSync(new URL('style.css', ASSETS), 'utf8');
  const throughput = throughputChart(report);
  const charts = [...(throughput === undefined ? [] : [throughput]), ...scalingCharts(report)];
  const { verdict } = report;
  const notes = new DoubtNotes();
  const policy = `default-src 'none'; script-src '${hashOf(script)}'; style-src '${hashOf(style)}'; img-src data:; base-uri 'none'; form-action 'none'`;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>zpull bench ${report.image.reference}</title>
<style>${new Html(style)}</style>
</head>
<body>
<main>
${header(report)}
${verdict === null ? null : verdictSection(verdict)}
<noscript><p class="note">Without JavaScript there are no line charts. The tables have all figures.</p></noscript>
${verdict?.shares == null ? null : sharesFigure(verdict.shares)}
${throughput === undefined ? null : lineFigure(throughput)}
${stagesFigure(report)}
${charts.filter((chart) => chart !== throughput).map(lineFigure)}
${comparisonFigure(report, notes)}
${measurementsSections(report, notes)}
${othersSection(report)}
${repeatSection(report)}
</main>
<script type="application/json" id="charts">${jsonHtml(charts)}</script>
<script>${new Html(script)}</script>
</body>
</html>
`;
  return page.text;
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

function header({ image, startedAt, complete, settings, zpull }: Report): Html {
  const formats = [...new Set(image.layers.map(({ format }) => format))].join(', ');
  return html`<header>
<p class="kind">zpull bench</p>
<h1>${image.reference}</h1>
<p><code>${image.digest}</code> ${image.platform}</p>
<p>${formatBytes(image.blobBytes)} in ${formatCount(image.layers.length, 'layer')} (${formats}), ${formatBytes(image.tarBytes)} of tar.
Measured on <time datetime="${startedAt}">${startedAt.replace('T', ' ').slice(0, 16)} UTC</time> with zpull ${zpull}, ${formatCount(settings.runs, 'run')} each${
    settings.limitRate === null ? null : html`, limited to ${formatRate(settings.limitRate)}`
  }.</p>
${complete ? null : html`<p class="note">This is not complete: the measurement was ended, or still goes on.</p>`}
</header>`;
}

function verdictSection(verdict: Verdict): Html {
  const { reason, advice } = verdict;
  return html`<section id="verdict"><h2>Verdict</h2>
<p class="verdict">${reason}</p>
<ul>
${[...settingSentences(verdict), ...advice].map((sentence) => html`<li>${sentence}</li>`)}
</ul></section>`;
}

/** All figures, what puts them in doubt, and what could not be measured. */
function measurementsSections(report: Report, notes: DoubtNotes): Html {
  const { measurements, doubts, errors } = report;
  const table = measurementsTable(report, notes);
  const list = [...notes.lines, ...doubts].map((doubt) => html`<li>${doubt}</li>`);
  const failed = errors.map(
    ({ measurement, message, hint }) => html`<li>${measurement}: ${message}. Hint: ${hint}</li>`,
  );
  return html`${
    measurements.length === 0
      ? null
      : html`<section id="measurements"><h2>All measurements</h2>
<p>MB/s: compressed bytes a second; of decode, hash, write and export those of the tars. MB/s, CPU time, memory and bytes are
medians; σ is the standard deviation. Letters are doubts, below.</p>
${table}</section>`
  }
${list.length === 0 ? null : html`<section id="doubts"><h2>Doubts</h2><ul>${list}</ul></section>`}
${failed.length === 0 ? null : html`<section id="errors"><h2>Not measured</h2><ul>${failed}</ul></section>`}`;
}

function othersSection({ peers }: Report): Html | null {
  if (peers.length === 0) return null;
  const items = peers.map(({ name, version, missing, command, leaves, proves }) =>
    missing === null
      ? html`<li><b>${name}</b> ${version}: leaves ${leaves}; proves ${proves}.<br><code>${command}</code></li>`
      : html`<li><b>${name}</b> was not measured: ${missing}</li>`,
  );
  return html`<section id="others"><h2>Other programs</h2><ul>${items}</ul></section>`;
}

function repeatSection({ command, machine }: Report): Html {
  const { cores, cpuModel, memoryBytes, kernel, node, zstd, fileSystem } = machine;
  return html`<section id="repeat"><h2>Repeat it</h2>
<pre class="scroll" tabindex="0"><code>${command.map(shellWord).join(' ')}</code></pre>
<p>Measured on ${formatCount(cores, 'core')} (${cpuModel}), ${formatBytes(memoryBytes)} of memory, ${kernel}, Node ${node}, ${zstd}, stores on ${fileSystem}.</p></section>`;
}

/** A word as a POSIX shell takes it. */
function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
