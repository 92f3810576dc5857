import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

export interface BenchOptions {
  /** How often each measurement is repeated; the table has medians. */
  readonly runs: number;
  /** Files of the sample image: 20,000 are about 1 GiB. */
  readonly files: number;
  /** Where samples are kept between runs of the bench, and where stores are made and removed. */
  readonly workDir: string;
  /** Numbers of the rows to measure; undefined: all. */
  readonly only: ReadonlySet<number> | undefined;
  /** Also the 4 GiB and the 120,000-file image. */
  readonly large: boolean;
  /** Decides the moments at which pulls are killed. */
  readonly seed: number;
}

export const USAGE = `npm run bench -- [options]
  --runs N     repeat each measurement N times (3)
  --files N    files of the sample image (20000, about 1 GiB)
  --work DIR   keeps samples, holds stores while they are needed (${join(tmpdir(), 'zpull-bench')})
  --only ROWS  measure these rows, as in --only 1,4,11
  --large      also measure the 4 GiB and the 120,000-file image (minutes, 10 GB of disk)
  --seed N     moments of the kills (random, printed)`;

/** The options that the command line means. @throws Error naming the one that is wrong */
export function parseOptions(argv: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      runs: { type: 'string', default: '3' },
      files: { type: 'string', default: '20000' },
      work: { type: 'string', default: join(tmpdir(), 'zpull-bench') },
      only: { type: 'string' },
      large: { type: 'boolean', default: false },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
    },
  });
  return {
    runs: integer('runs', values.runs, 1),
    files: integer('files', values.files, 1),
    workDir: values.work,
    only:
      values.only === undefined
        ? undefined
        : new Set(values.only.split(',').map((row) => integer('only', row, 1))),
    large: values.large,
    seed: integer('seed', values.seed, 0),
  };
}

function integer(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new Error(`--${name} takes a whole number from ${least} on, not ${text}`);
}
