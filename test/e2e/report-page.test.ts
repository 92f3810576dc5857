import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Browser, Page, Viewport } from 'puppeteer-core';
import type { Report } from '../../src/measure/report.js';
import { reportPage } from '../../src/measure/report-page.js';
import { startBrowser } from '../support/browser.js';
import { skipUnless } from '../support/programs.js';
import { sampleReport } from '../support/sample-report.js';
import { temporaryDirectory } from '../support/temporary.js';

const skip = skipUnless('chromium');
const directory = temporaryDirectory({ after });
const PHONE: Viewport = { width: 360, height: 740, isMobile: true, hasTouch: true };

let browser: Browser | undefined;
before(async () => {
  if (skip === false) browser = await startBrowser();
});
after(async () => await browser?.close());

/** A page opened from disk, and what it said and asked for since. */
interface Opened {
  readonly page: Page;
  readonly messages: string[];
  readonly requests: string[];
}

async function open(report: Report, viewport: Viewport = { width: 1000, height: 800 }): Promise<Opened> {
  const page = await browser!.newPage();
  const messages: string[] = [];
  const requests: string[] = [];
  await page.setViewport(viewport);
  page.on('console', (message) => messages.push(message.text()));
  page.on('pageerror', (error) => messages.push(String(error)));
  page.on('request', (request) => requests.push(request.url()));
  const path = join(directory, 'report.html');
  writeFileSync(path, reportPage(report));
  const { href } = pathToFileURL(path);
  await page.goto(href);
  assert.deepEqual(requests.splice(0), [href]);
  return { page, messages, requests };
}

/** Each row of the tables of a section, as [heading, exact figures…]; empty cells are null. */
async function rowsOf(page: Page, section: string): Promise<unknown> {
  return await page.evaluate(`[...document.querySelectorAll('#${section} .scroll tbody tr')].map((row) => [
    row.querySelector('th').textContent,
    ...[...row.querySelectorAll('td')].map((cell) => cell.querySelector('data') && Number(cell.querySelector('data').value)),
  ])`);
}

/** Counts the pixels of a chart that have about this color of the style sheet. */
function pixelsOf(chart: string, color: string): string {
  return `(() => {
    const canvas = document.querySelector('#${chart} canvas');
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    const hex = getComputedStyle(document.documentElement).getPropertyValue('${color}').trim();
    const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255 && wanted.every((part, at) => Math.abs(data[i + at] - part) < 40)) count++;
    return count;
  })()`;
}

const rate = (bytesPerSecond: number) => bytesPerSecond / 1e6;

test('the page has every figure of the report in tables', { skip }, async () => {
  const report = sampleReport();
  const { page, messages, requests } = await open(report);
  assert.deepEqual(
    await rowsOf(page, 'measurements'),
    report.measurements.map(
      ({ name, wallSeconds: wall, bytesPerSecond, bytes, cpuSeconds, peakMemoryBytes, runs }) => [
        ...[
          name === 'peer, skopeo' ? `${name} a` : name,
          wall.median,
          wall.mean,
          wall.standardDeviation,
          wall.min,
          wall.max,
        ],
        ...[
          bytesPerSecond.median,
          bytes,
          cpuSeconds?.median ?? null,
          peakMemoryBytes?.median ?? null,
          runs.length,
        ],
      ],
    ),
  );
  const at = (id: string) => report.measurements.find((measurement) => measurement.id === id)!;
  const figures = (id: string) => {
    const { median, min, max } = at(id).bytesPerSecond;
    return [median, min, max].map(rate);
  };
  assert.deepEqual(
    await rowsOf(page, 'connections-section'),
    [1, 4, 16].map((number) => [
      String(number),
      ...figures(`pull/w2/c${number}`),
      ...figures(`network/c${number}`),
    ]),
  );
  assert.deepEqual(
    await rowsOf(page, 'workers-section'),
    [1, 2].map((number) => [String(number), ...figures(`pull/w${number}/c16`)]),
  );
  const seconds = (id: string) => [
    at(id).name,
    ...['median', 'min', 'max'].map((of) => at(id).wallSeconds[of as 'median']),
  ];
  assert.deepEqual(await rowsOf(page, 'comparison-section'), [
    ['floor: the longest of what parts take alone', 1.31 / 1.6, null, null],
    ...['network/c16', 'machine/together/all', 'pull/w2/c16', 'peer/skopeo'].map(seconds),
  ]);
  const shares = Object.values(report.verdict?.shares ?? {});
  assert.deepEqual(
    ((await rowsOf(page, 'shares-section')) as unknown[][]).map(([, share]) => share),
    shares,
  );
  const stages = at('pull/w2/c16').runs[1]!.stages!;
  const parts = [
    stages.resolve,
    stages.metadata,
    stages.fetch,
    stages.decode,
    stages.hash,
    stages.write,
    stages.sync,
    stages.prove,
  ];
  const [, run] = (await rowsOf(page, 'stages-section')) as unknown[][];
  assert.deepEqual(run, [
    'pull, w2, c16, run 2',
    ...parts.flatMap(({ workMs, waitMs }) => [workMs / 1000, waitMs / 1000]),
  ]);
  assert.deepEqual(
    await page.evaluate(`[...document.querySelectorAll('#doubts li')].map(({ textContent }) => textContent)`),
    ['a) the runs lie 19 % apart', ...report.doubts],
  );
  assert.deepEqual([messages, requests], [[], []]);
});

test('what a table shows is its exact figure, rounded', { skip }, async () => {
  const { page } = await open(sampleReport());
  const cells = (await page.evaluate(
    `[...document.querySelectorAll('details td data, #measurements td:nth-of-type(-n+5) data')].map(({ value, textContent }) => [Number(value), Number(textContent)])`,
  )) as Array<[number, number]>;
  const wrong = cells.filter(
    ([value, shown]) => !(Math.abs(shown - value) <= Math.max(0.00051, value * 0.006)),
  );
  assert.ok(cells.length > 100);
  // Shares are shown in percent.
  assert.ok(
    wrong.every(([value, shown]) => Math.abs(shown - value * 100) <= 0.05),
    JSON.stringify(wrong),
  );
});

test('lines of all series are drawn, and again in other colors when the page turns dark', {
  skip,
}, async () => {
  const { page, messages } = await open(sampleReport());
  const lines = [
    ['throughput', '--series-0'],
    ['throughput', '--series-1'],
    ['connections', '--series-0'],
    ['connections', '--series-1'],
    ['workers', '--series-0'],
  ] as const;
  const isDrawn = lines.map(([chart, color]) => `${pixelsOf(chart, color)} > 50`).join(' && ');
  // The page is told of another scheme with the next frame.
  await page.waitForFunction(isDrawn);
  const background = `getComputedStyle(document.body).backgroundColor`;
  const light = await page.evaluate(background);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  assert.notEqual(await page.evaluate(background), light);
  await page.waitForFunction(isDrawn);
  assert.equal(await page.evaluate(`document.querySelectorAll('canvas').length`), 3);
  assert.deepEqual(messages, []);
});

test('the arrow keys read the values of a chart, and Enter opens its table', { skip }, async () => {
  const report = sampleReport();
  const { page } = await open(report);
  await page.focus('#connections');
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowLeft'] as const)
    await page.keyboard.press(key);
  const shown = await page.evaluate(
    `[...document.querySelectorAll('#connections .u-series:not(.edge) .u-value')].map(({ textContent }) => textContent)`,
  );
  const rates = ['pull/w2/c4', 'network/c4'].map((id) => report.measurements.find((each) => each.id === id)!);
  assert.deepEqual(shown, [
    '4',
    ...rates.map(({ bytesPerSecond }) => String(Number(rate(bytesPerSecond.median).toPrecision(4)))),
  ]);
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(`document.querySelector('#connections-section details').open`), true);
});

const HOSTILE = `</script></style><script>hit=1</script>"'><img src=x onerror=hit=1><svg onload=hit=1>&lt;${'\u202e'}${'\u0007'}<!--`;

/** The report with each text of it hostile, but for what decides where it is shown. */
function hostile<Value>(value: Value, key = ''): Value {
  if (typeof value === 'string')
    return (['stage', 'id'].includes(key) ? value : `${value}${HOSTILE}`) as Value;
  if (Array.isArray(value)) return value.map((each) => hostile(each)) as Value;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [name, hostile(each, name)]),
  ) as Value;
}

test('texts of the report stay texts, and no other script or style runs', { skip }, async () => {
  const report = hostile(sampleReport());
  const { page, messages, requests } = await open(report);
  assert.equal(await page.evaluate(`typeof hit`), 'undefined');
  const count = (selector: string) =>
    page.evaluate(`document.querySelectorAll(${JSON.stringify(selector)}).length`);
  assert.deepEqual(
    [await count('script'), await count('style'), await count('img'), await count('canvas')],
    [2, 1, 0, 3],
  );
  assert.equal(await count('main [onload], main [onerror], main [style]:not(.chart *)'), 0);
  const visible = HOSTILE.replace('\u202e', 'U+202E').replace('\u0007', 'U+0007');
  assert.equal(
    await page.evaluate(`document.querySelector('h1').textContent`),
    `registry.test/some/image:tag${visible}`,
  );
  assert.deepEqual([messages, requests], [[], []]);
  await page.evaluate(`{
    const script = document.createElement('script');
    script.textContent = 'hit = 1';
    document.body.append(script);
    document.body.insertAdjacentHTML('beforeend', '<button onclick="hit=1">');
    document.querySelector('button').click();
  }`);
  assert.equal(await page.evaluate(`typeof hit`), 'undefined');
  assert.equal(
    await page.evaluate(`fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')`),
    'refused',
  );
  assert.match(messages.join('\n'), /Content Security Policy/);
});

test('on a phone nothing is wider than the screen, long names and open tables included', {
  skip,
}, async () => {
  const report = hostile(sampleReport());
  const { page, messages } = await open(
    { ...report, image: { ...report.image, reference: `registry.test/${'long'.repeat(60)}:tag` } },
    PHONE,
  );
  await page.evaluate(`for (const details of document.querySelectorAll('details')) details.open = true`);
  assert.equal(await page.evaluate(`document.documentElement.scrollWidth`), PHONE.width);
  assert.deepEqual(messages, []);
});

test('a report of which nothing was measured, or without a verdict, is a page, too', { skip }, async () => {
  const report = { ...sampleReport(), complete: false, verdict: null };
  const { page, messages } = await open({ ...report, measurements: [], peers: [], doubts: [], errors: [] });
  assert.match(String(await page.evaluate(`document.body.innerText`)), /This is not complete/);
  assert.equal(await page.evaluate(`document.querySelectorAll('canvas').length`), 0);
  assert.deepEqual(messages, []);
  const [first] = report.measurements;
  const single = await open({ ...report, measurements: [first!] });
  assert.equal(await single.page.evaluate(`document.querySelectorAll('#measurements tbody tr').length`), 1);
  assert.deepEqual(single.messages, []);
});
