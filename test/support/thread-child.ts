/**
 * A process whose threads fail. argv: a JSON object, see `ThreadJob`. Writes one JSON object a line for each step: how it failed, and how many
 * threads were left. It does not call process.exit: whatever a step leaves behind keeps it alive.
 */
import { readdirSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Worker, WorkerOptions } from 'node:worker_threads';
import { copyImage } from '../../src/api/copy.js';
import { PullError } from '../../src/api/errors.js';
import { exportLayers, exportTar } from '../../src/api/export.js';
import { inspectImage, pullImage } from '../../src/api/pull.js';
import { pruneStore, verifyStore } from '../../src/api/store.js';
import { listLayerFiles } from '../../src/store/layer-record.js';
import { storePaths } from '../../src/store/paths.js';

export interface ThreadJob {
  readonly image: string;
  /** `{i}` in it is the number of the step. */
  readonly store: string;
  readonly steps: ReadonlyArray<{
    readonly use: keyof typeof USES;
    readonly fault: keyof typeof FAULTS;
    /** The first thread of the step that fails; 1 is the first of all. All after it fail, too. */
    readonly first?: number;
  }>;
}

/** What a step ended with. */
export interface StepEnd {
  readonly code: string;
  readonly exitCode: number;
  readonly message: string;
  readonly hint: string;
  readonly threads: number;
}

const imports = (code: string) => ['--import', `data:text/javascript,${encodeURIComponent(code)}`];
const soon = (code: string) => imports(`setTimeout(() => { ${code} }, 50)`);
/** Piscina's first message brings the port on which the tasks come. */
const atFirstTask = (code: string) =>
  imports(`import { parentPort } from 'node:worker_threads';
    parentPort.once('message', ({ port }) => port.once('message', () => { ${code} }))`);

const FAULTS = {
  // No system has this much address space: it fails with EAGAIN, as beyond `ulimit -u`.
  refused: { resourceLimits: { stackSizeMb: 2 ** 30 } },
  // A heap too small to begin with ends the process in Node 24, not the thread.
  memory: {
    resourceLimits: { maxOldGenerationSizeMb: 16 },
    execArgv: imports('const all = []; for (;;) all.push(new Array(10_000).fill(all))'),
  },
  exits: { execArgv: soon('process.exit(3)') },
  'exits at a task': { execArgv: atFirstTask('process.exit(3)') },
  throws: { execArgv: soon('throw new Error("a bug")') },
} as const satisfies Record<string, WorkerOptions>;

const diffIds = (store: string) => listLayerFiles(storePaths(store)).map(({ diffId }) => diffId);
const USES = {
  pull: (image: string, store: string) => pullImage(image, { store, workers: 4 }),
  inspect: (image: string, store: string) => inspectImage(image, { store, workers: 4 }),
  copy: (image: string, store: string) =>
    copyImage(image, { destination: { kind: 'layout', path: store }, workers: 4 }),
  'export-layers': (_: string, store: string) =>
    exportLayers({ store, diffIds: diffIds(store), directory: join(store, 'exported') }),
  'export-tar': (_: string, store: string) =>
    exportTar({ store, diffIds: diffIds(store), file: join(store, 'exported.tar') }),
  verify: (_: string, store: string) => verifyStore({ store }),
  prune: (_: string, store: string) => pruneStore({ store }),
} as const;

/** Piscina looks the class up each time. */
const threads = createRequire(import.meta.url)('node:worker_threads') as { Worker: typeof Worker };
const Sound = threads.Worker;

/** Breaks the threads that are started from now on, from number `first` on. */
function breakThreads(fault: keyof typeof FAULTS, first: number): void {
  let started = 0;
  threads.Worker = class extends Sound {
    constructor(file: string | URL, options: WorkerOptions) {
      started += 1;
      super(file, started < first ? options : { ...options, ...FAULTS[fault] });
    }
  };
}

const { image, store, steps } = JSON.parse(process.argv[2] ?? '') as ThreadJob;
for (const [i, { use, fault, first = 1 }] of steps.entries()) {
  breakThreads(fault, first);
  const end = await USES[use](image, store.replace('{i}', String(i))).catch((error: unknown) => error);
  const { code, exitCode, message, hint } =
    end instanceof PullError ? end : new PullError('internal', String(end));
  const left = readdirSync('/proc/self/task').length;
  writeSync(1, `${JSON.stringify({ code, exitCode, message, hint, threads: left } satisfies StepEnd)}\n`);
}
