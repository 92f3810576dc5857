/**
 * A process that pulls, inspects or copies one image, for tests that kill it or wait until it ends by itself. argv: a JSON object with
 * `image`, `options` and `times`. Writes one JSON object a line: events as they come, then a result or an error, then
 * what is still open and the most memory it had.
 * It does not call process.exit: whatever the pull leaves behind keeps it alive.
 */
import { existsSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { copyImage } from '../../src/api/copy.js';
import { PullError } from '../../src/api/errors.js';
import { inspectImage, type PullOptions, pullImage } from '../../src/api/pull.js';

export interface ChildJob {
  readonly image: string;
  readonly options: PullOptions;
  /** How often; default once. With more than once, `{i}` in the store's path is the number of the pull. */
  readonly times?: number;
  /** Instead of pulling. A copy takes all platforms, into a layout at the place of the store. */
  readonly use?: 'inspect' | 'copy';
}

const { image, options, times = 1, use } = JSON.parse(process.argv[2] ?? '') as ChildJob;

/**
 * Writes a line, in parts where it is long: the first event about 999 layers has 200 KB, and a pipe
 * takes 64. A pipe that does not block is tried again until the parent has read.
 */
function say(line: object): void {
  for (let rest = Buffer.from(`${JSON.stringify(line)}\n`); rest.length > 0; ) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** Threads and file descriptors of this process; none where there is no /proc. */
function stillOpen(): { threads: number; files: number } {
  const count = (path: string): number => {
    try {
      return readdirSync(path).length;
    } catch {
      return 0;
    }
  };
  return { threads: count('/proc/self/task'), files: count('/proc/self/fd') };
}

/**
 * The largest resident size so far. Linux counts the parent's at the time of the fork into what getrusage tells, but not
 * into VmHWM.
 */
function maxRssBytes(): number {
  const ownKiB = existsSync('/proc/self/status')
    ? Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
    : process.resourceUsage().maxRSS;
  return ownKiB * 1024;
}

for (let i = 0; i < times; i++) {
  try {
    const store = options.store.replace('{i}', String(i));
    if (use === 'inspect') {
      await inspectImage(image, { ...options, store, onEvent: say });
    } else if (use === 'copy') {
      const destination = { kind: 'layout', path: store } as const;
      await copyImage(image, { ...options, destination, allPlatforms: true, onEvent: say });
    } else {
      say({ result: await pullImage(image, { ...options, store, onEvent: say }) });
    }
  } catch (error) {
    say({ error: error instanceof PullError ? { code: error.code, message: error.message } : String(error) });
  }
  say({ open: stillOpen(), maxRssBytes: maxRssBytes() });
}
