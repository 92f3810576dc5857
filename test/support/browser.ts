import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type Browser, launch } from 'puppeteer-core';

/** Starts Debian's Chromium without a window. The caller closes it. */
export async function startBrowser(): Promise<Browser> {
  const folder = (process.env['PATH'] ?? '')
    .split(delimiter)
    .find((path) => existsSync(join(path, 'chromium')));
  return await launch({
    executablePath: join(folder ?? '', 'chromium'),
    // Chromium's sandbox does not run as root, nor in most containers. The pages are our own.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });
}
