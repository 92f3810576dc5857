/**
 * Measures the generated image through a registry with 50 ms of latency and 20 MB/s a connection by
 * `zpull bench`, and takes the picture of its page for README.md and docs/measuring.md: `npm run build
 * && node dist/bench/report-picture.js` (minutes). The whole page and the report are left in the work
 * directory.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { startBrowser } from '../test/support/browser.js';
import { parseOptions } from './options.js';
import { runProgram, ZPULL } from './process.js';
import { treeSample } from './sample.js';
import { withServer } from './server.js';

const PICTURE = fileURLToPath(new URL('../../docs/images/bench.png', import.meta.url));

const NETWORK = { latencyMs: 50, ratePerConnectionBytes: 20e6 };
const SETTINGS = ['--connections', '1,4,8,16', '--against', 'skopeo', '--yes'];

/** What the picture has of the page: all of it would be too long to look at. */
const SECTIONS = ['verdict', 'shares-section', 'connections-section', 'comparison-section', 'doubts'];
const HIDDEN = 'section, details, #verdict ul, header p';
const WIDTH = 760;
/** Everybody who clones the repository gets it. */
const MAX_PICTURE_BYTES = 150_000;

const options = parseOptions(process.argv.slice(2));
if (options === undefined) throw new Error('takes --runs, --files and --work');
const { runs, files, workDir } = options;
mkdirSync(workDir, { recursive: true });
const page = join(workDir, 'bench.html');
const report = join(workDir, 'bench.json');
const { layoutDir, ref } = await treeSample(workDir, files, 1);
const store = mkdtempSync(join(workDir, 'store-'));
try {
  await withServer({ layout: layoutDir, ...NETWORK }, async ({ host }) => {
    const image = `${host}/sample/tree:${ref}`;
    const own = ['--runs', String(runs), '--store', store, '--html', page, '--json', report];
    await runProgram(process.execPath, [ZPULL, 'bench', image, ...SETTINGS, ...own]);
  });
} finally {
  rmSync(store, { recursive: true, force: true });
}
const picture = await pictureOf(page);
if (picture.length > MAX_PICTURE_BYTES) throw new Error(`the picture has ${picture.length} bytes`);
mkdirSync(dirname(PICTURE), { recursive: true });
writeFileSync(PICTURE, picture);

/** The first sections of the page, in light colors, as a PNG. */
async function pictureOf(path: string): Promise<Uint8Array> {
  const browser = await startBrowser();
  try {
    const tab = await browser.newPage();
    await tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
    await tab.setViewport({ width: WIDTH, height: 600 });
    await tab.goto(pathToFileURL(path).href);
    await tab.evaluate(`for (const part of document.querySelectorAll('${HIDDEN}')) {
      part.hidden = !${JSON.stringify(SECTIONS)}.includes(part.id);
    }`);
    const main = await tab.$('main');
    return await main!.screenshot();
  } finally {
    await browser.close();
  }
}
