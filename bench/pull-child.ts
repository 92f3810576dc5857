import { type PullOptions, pullImage } from '../src/index.js';

/** What the process is told, as JSON in its first argument. */
export interface PullChildOptions {
  readonly reference: string;
  readonly options: Omit<PullOptions, 'onEvent' | 'signal'>;
  /** Print how many bytes were received, ten times a second. */
  readonly tellProgress: boolean;
}

const { reference, options, tellProgress } = JSON.parse(process.argv[2] ?? '') as PullChildOptions;

const result = await pullImage(reference, {
  ...options,
  onEvent: (event) => {
    if (tellProgress && event.event === 'progress') tell({ receivedBytes: event.receivedBytes });
  },
});
tell({ result, cpu: process.cpuUsage(), maxRssKib: process.resourceUsage().maxRSS });

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
