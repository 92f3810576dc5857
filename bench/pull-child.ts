import { type PullOptions, pullImage } from '../src/index.js';

/** What the process is told, as JSON in its first argument. */
export interface PullChildOptions {
  readonly reference: string;
  readonly options: Omit<PullOptions, 'onEvent' | 'signal'>;
  /** Print how many bytes are to be fetched when that is known, and how many were received, ten times a second. */
  readonly tellProgress: boolean;
}

const { reference, options, tellProgress } = JSON.parse(process.argv[2] ?? '') as PullChildOptions;

const result = await pullImage(reference, {
  ...options,
  onEvent: (event) => {
    if (tellProgress && event.event === 'progress') tell({ receivedBytes: event.receivedBytes });
    if (tellProgress && event.event === 'planned') tell({ plannedBytes: event.totalBytes });
  },
});
tell({ result });

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
