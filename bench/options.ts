import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { nearest } from '../src/cli/check-arguments.js';
import { UsageError } from '../src/cli/failure.js';
import { REAL_ROWS, ROWS, type RowDefinition, rowNumber } from './rows.js';

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
  /** Bytes of this machine's files to measure instead of the generated tree; undefined: that tree. */
  readonly realBytes: number | undefined;
  /** Decides the moments at which pulls are killed. */
  readonly seed: number;
  /** A file of results to compare with; undefined: none. */
  readonly compareWith: string | undefined;
  /** A Markdown document whose table is replaced; undefined: none. */
  readonly tableIn: string | undefined;
}

/** What `--quick` measures: ratios alone, of what most pulls and exports do, in less than three minutes. */
const QUICK_FILES = '4000';
const QUICK_ROWS = '1,2,7,8,10,13,14,15,23,24';

export const USAGE = `npm run bench -- [options]
  --runs N     repeat each measurement N times (3)
  --files N    files of the sample image (20000, about 1 GiB)
  --work DIR   keeps samples, holds stores while they are needed (${join(tmpdir(), 'zpull-bench')})
  --only ROWS  measure these rows, as in --only 1,4,11
  --quick      ${QUICK_FILES} files and the rows ${QUICK_ROWS} (less than three minutes), for --compare
  --compare FILE  compare with the results of another run with the same options: exit code 1 if a ratio got worse by more than
               10 %, 3 if the machine is too busy to tell
  --table-in FILE  put the table into a Markdown file, in the place of the one that BENCHMARKS.md has, for example
  --large      also measure the 4 GiB and the 120,000-file image (minutes, 10 GB of disk)
  --real       measure on files of /usr, against what else is installed, in place of the rows above (half an hour, 10 GB of disk)
  --real-mb N  so many megabytes of files (2000)
  --seed N     moments of the kills (random, printed)
  -h, --help   print this`;

const HELP_HINT = 'npm run bench -- --help lists the options';

const OPTIONS = {
  runs: { type: 'string', default: '3' },
  files: { type: 'string' },
  quick: { type: 'boolean', default: false },
  compare: { type: 'string' },
  'table-in': { type: 'string' },
  work: { type: 'string', default: join(tmpdir(), 'zpull-bench') },
  only: { type: 'string' },
  large: { type: 'boolean', default: false },
  real: { type: 'boolean', default: false },
  'real-mb': { type: 'string', default: '2000' },
  seed: { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** The options that the command line means; undefined if it asks for help. @throws UsageError */
export function parseOptions(argv: readonly string[]): BenchOptions | undefined {
  const values = parseValues(argv);
  if (values.help) return undefined;
  const only = values.only ?? (values.quick ? QUICK_ROWS : undefined);
  return {
    runs: integer('runs', values.runs, 1),
    files: integer('files', values.files ?? (values.quick ? QUICK_FILES : '20000'), 1),
    workDir: values.work,
    only: only === undefined ? undefined : parseRows(only, values.real ? REAL_ROWS : ROWS),
    large: values.large,
    realBytes: values.real ? integer('real-mb', values['real-mb'], 1) * 1e6 : undefined,
    seed: integer('seed', values.seed ?? String(Math.floor(Math.random() * 2 ** 32)), 0),
    compareWith: values.compare,
    tableIn: values['table-in'],
  };
}

function parseValues(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS }).values;
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    const [, typed = ''] = /'(-[^'=]*)/.exec(message) ?? [];
    if (code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION') throw new UsageError(message, HELP_HINT);
    const word = typed.replace(/^-+/, '');
    const guess = nearest(word, Object.keys(OPTIONS), Math.min(3, Math.floor(word.length / 2)));
    const meant = guess === undefined ? '' : `did you mean --${guess}? `;
    throw new UsageError(`npm run bench has no option ${typed}`, meant + HELP_HINT);
  }
}

function parseRows(text: string, rows: readonly RowDefinition[]): ReadonlySet<number> {
  const known = [...new Set(rows.map(({ id }) => rowNumber(id)))];
  const numbers = text.split(',').map((row) => {
    const number = known.find((each) => String(each) === row.trim());
    if (number !== undefined) return number;
    throw new UsageError(`--only: there is no row "${row}"`, `there are ${known.join(', ')}`);
  });
  return new Set(numbers);
}

function integer(name: string, text: string, least: number): number {
  const value = Number(text);
  if (text !== '' && Number.isSafeInteger(value) && value >= least) return value;
  throw new UsageError(`--${name} must be a whole number from ${least} on, not "${text}"`, HELP_HINT);
}
