import { type PullOptions, pullImage } from '../src/api/pull.js';

/** What the process is told, as JSON in its first argument. */
export interface PullChildOptions {
  readonly reference: string;
  readonly options: Omit<PullOptions, 'onEvent' | 'signal'>;
}

const { reference, options } = JSON.parse(process.argv[2] ?? '') as PullChildOptions;

const result = await pullImage(reference, {
  ...options,
  onEvent: (event) => {
    if (event.event === 'progress') tell({ receivedBytes: event.receivedBytes });
    if (event.event === 'planned') tell({ plannedBytes: event.totalBytes });
  },
});
tell({ result });

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
