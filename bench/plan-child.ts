import { type PullOptions, pullImage } from '../src/api/pull.js';

/** What the process is told, as JSON in its first argument: a pull that ends when its plan is made. */
export interface PlanChildOptions {
  readonly reference: string;
  readonly options: Omit<PullOptions, 'onEvent' | 'signal'>;
}

const { reference, options } = JSON.parse(process.argv[2] ?? '') as PlanChildOptions;
const controller = new AbortController();
let resolvedMs = 0;

await pullImage(reference, {
  ...options,
  signal: controller.signal,
  onEvent: ({ event }) => {
    if (event === 'resolved') resolvedMs = performance.now();
    if (event !== 'planned') return;
    const maxRssBytes = process.resourceUsage().maxRSS * 1024;
    const seconds = (performance.now() - resolvedMs) / 1000;
    process.stdout.write(`${JSON.stringify({ seconds, maxRssBytes })}\n`);
    controller.abort();
  },
}).catch((error: unknown) => {
  if (!controller.signal.aborted) throw error;
});
