import { once } from 'node:events';
import { realpathSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { PullError } from '../../api/errors.js';
import { formatBytes, formatSeconds } from '../../api/figures.js';
import { compareReports, slowerThan } from '../../measure/compare.js';
import type { MeasureOptions, Step } from '../../measure/context.js';
import { type FetchPlan, type Hooks, measureImage } from '../../measure/measure-image.js';
import { PEER_NAMES } from '../../measure/peers.js';
import type { Report } from '../../measure/report.js';
import { reportPage } from '../../measure/report-page.js';
import { openScratch, readReport, replaceFile, requireWritable } from '../bench-files.js';
import { comparisonText, reportText } from '../bench-text.js';
import { UsageError } from '../failure.js';
import { jsonLine, printable } from '../format-text.js';
import { BENCH_OPTIONS, type OptionSpec, type OptionValues, PULL_OPTIONS } from '../options.js';
import { progressKind } from '../progress/renderer.js';
import { pullOptionsOf, readPassword, storeOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';

/** The exit code of `--fail-if-slower`. */
const SLOWER_EXIT_CODE = 9;
/** More is fetched only if the user agrees: a metered link would be expensive. */
const MAX_UNASKED_BYTES = 5e9;
const DEFAULT_RUNS = 5;

/**
 * `zpull bench IMAGE`: measures network, machine and pulls, and prints a table and a verdict. What
 * was measured is printed and written even if something fails or Ctrl-C ends it.
 */
export async function runBench([image = '']: readonly string[], given: OptionValues): Promise<number> {
  checkOptions(given);
  const before = given.compare === undefined ? undefined : readReport(given.compare);
  const options = await readPassword(given);
  const display = await createDisplay(options);
  const scratch = openScratch(storeOf(options, process.env));
  let report: Report | undefined;
  const hooks = (signal: AbortSignal): Hooks => ({
    confirm: (plan) => confirm(plan, options, signal),
    onStep: display.onStep,
    save: (latest) => {
      report = latest;
      saveReport(latest, options);
    },
  });
  // A terminal that was closed: without this, commands and stores would stay.
  process.once('SIGHUP', () => process.kill(process.pid, 'SIGTERM'));
  try {
    await untilSignal((signal) =>
      measureImage(
        { ...measureOptionsOf(image, given, options), directory: scratch.path, signal },
        hooks(signal),
      ),
    );
  } finally {
    display.end();
    scratch.remove();
    if (report !== undefined) printReport(report, options);
  }
  return exitCodeOf(report!, before, options);
}

/**
 * @throws UsageError for values that yargs cannot check; PullError where `--json` or `--html` cannot be
 *   written
 */
function checkOptions(options: OptionValues): void {
  const { stage, from, against = [], html, 'json-file': json } = options;
  if (html === '-')
    throw new UsageError('--html needs the name of a file', 'give one, like --html bench.html');
  if (html !== undefined && html === json)
    throw new UsageError('--json and --html name the same file', 'give each a file of its own');
  if (stage === 'update' && from === undefined) {
    throw new UsageError('--stage update needs an image to start from', 'add --from OLDER_IMAGE');
  }
  const unknown = against.find((name) => !PEER_NAMES.includes(name));
  if (unknown !== undefined) {
    throw new UsageError(`--against does not know "${unknown}"`, `it knows ${PEER_NAMES.join(', ')}`);
  }
  for (const file of reportFiles(options)) requireWritable(file);
}

function reportFiles({ 'json-file': json, html }: OptionValues): string[] {
  return [json, html].filter((file) => file !== undefined && file !== '-') as string[];
}

/** Options of pulls that say how the registry is reached, which every pull gets. */
const TRANSPORT = PULL_OPTIONS.filter(
  ({ name }) =>
    ![
      ...['platform', 'workers', 'connections', 'policy', 'progress', 'quiet', 'verbose'],
      ...['creds', 'username', 'password-stdin'],
    ].includes(name),
);

/** Options that repeat a measurement: without credentials, and without where the report goes. */
const REPEATING = [...BENCH_OPTIONS, ...TRANSPORT].filter(
  ({ name }) => !['json', 'html', 'compare', 'fail-if-slower', 'yes'].includes(name),
);

function measureOptionsOf(
  image: string,
  given: OptionValues,
  options: OptionValues,
): Omit<MeasureOptions, 'directory' | 'signal'> {
  const {
    store: _,
    policy: _policy,
    workers: _w,
    connections: _c,
    ...pull
  } = pullOptionsOf(options, process.env);
  const { 'workers-list': workers, 'connections-list': connections, from, platform } = options;
  const platformWords = platform === undefined ? [] : ['--platform', platform];
  const { credentials } = pull;
  return {
    image,
    pull,
    arguments: [...optionWords(TRANSPORT, given), ...credentialWords(credentials)],
    ...(credentials !== undefined && { input: credentials.password }),
    command: realpathSync(process.argv[1]!),
    commandLine: ['zpull', 'bench', image, ...optionWords(REPEATING, given), ...platformWords],
    runs: options.runs ?? DEFAULT_RUNS,
    stage: options.stage ?? 'all',
    ...(workers !== undefined && { workers: sorted(workers) }),
    ...(connections !== undefined && { connections: sorted(connections) }),
    ...(from !== undefined && { from }),
    against: options.against ?? [],
  };
}

/** A password goes to standard input: everybody on the machine can see arguments. */
function credentialWords(credentials: { username: string; password: string } | undefined): string[] {
  if (credentials === undefined) return [];
  const { username, password } = credentials;
  return password === '' ? ['--creds', `${username}:`] : ['--username', username, '--password-stdin'];
}

function sorted(numbers: readonly number[]): number[] {
  return [...numbers].sort((a, b) => a - b);
}

/** The options of a command line that were given, as words. */
function optionWords(specs: readonly OptionSpec[], given: OptionValues): string[] {
  return specs.flatMap(({ name, field = name as keyof OptionValues, placeholder }) => {
    const value = given[field];
    if (value === undefined) return [];
    return placeholder === undefined ? [`--${name}=${String(value)}`] : [`--${name}`, String(value)];
  });
}

/** Says what will be fetched. @throws UsageError when that is much and the user does not agree */
async function confirm(
  { image, blobBytes, fetchBytes }: FetchPlan,
  options: OptionValues,
  signal: AbortSignal,
): Promise<void> {
  const all = fetchBytes === 0 ? 'nothing from a network' : `up to ${formatBytes(fetchBytes)} for all runs`;
  const much = `${formatBytes(blobBytes)} a pull, ${all}`;
  if (options.quiet !== true) process.stderr.write(`${printable(image)}: ${much}\n`);
  if (fetchBytes <= MAX_UNASKED_BYTES || options.yes === true) return;
  if (await agrees(signal)) return;
  throw new UsageError(
    `all runs together would fetch up to ${formatBytes(fetchBytes)}`,
    'add --yes, or measure less with --runs, --connections or --stage',
  );
}

async function agrees(signal: AbortSignal): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return false;
  // In raw mode Ctrl-C would be a character.
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false });
  // Ctrl-D ends the input without an answer.
  const ended = once(lines, 'close').then(() => '');
  try {
    const answer = await Promise.race([lines.question('fetch that much? [y/N] ', { signal }), ended]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

/** Writes the report anew after each run. @throws PullError as `storageError` */
function saveReport(report: Report, { 'json-file': json, html }: OptionValues): void {
  if (json !== undefined && json !== '-') replaceFile(json, `${JSON.stringify(report, null, 2)}\n`);
  if (html !== undefined) replaceFile(html, reportPage(report));
}

function printReport(report: Report, { 'json-file': file }: OptionValues): void {
  process.stdout.write(file === '-' ? jsonLine(report) : reportText(report));
}

function exitCodeOf(report: Report, before: Report | undefined, options: OptionValues): number {
  const error = report.errors.find(({ code }) => code !== 'peer-failed');
  const comparison = before && compareReports(before, report);
  if (comparison !== undefined) {
    const stream = options['json-file'] === '-' ? process.stderr : process.stdout;
    stream.write(`\n${comparisonText(comparison)}`);
    const limit = options['fail-if-slower'];
    const slower = limit === undefined ? [] : slowerThan(comparison, limit);
    if (slower.length > 0) {
      const names = slower.map(({ name }) => name).join('; ');
      process.stderr.write(`zpull: slower by more than ${limit} %: ${printable(names)}\n`);
      return SLOWER_EXIT_CODE;
    }
  }
  if (error === undefined || error.code === 'peer-failed') return 0;
  return new PullError(error.code, error.message).exitCode;
}

/** Shows on stderr which run begins. */
interface Display {
  readonly onStep: (step: Step) => void;
  end(): void;
}

async function createDisplay(options: OptionValues, stream = process.stderr): Promise<Display> {
  const kind = progressKind(options, stream.isTTY === true && stream.columns > 0, process.env);
  if (kind === 'none') return { onStep: () => {}, end: () => {} };
  if (kind !== 'tty') {
    const line = (step: Step) =>
      kind === 'json' ? jsonLine({ event: 'measuring', ...step }) : `${stepText(step)}\n`;
    return { onStep: (step) => void stream.write(line(step)), end: () => {} };
  }
  const { default: ora } = await import('ora');
  // By default ora makes stdin raw, and Ctrl-C sends no signal any more.
  const spinner = ora({
    stream,
    isEnabled: true,
    discardStdin: false,
    color: process.env['NO_COLOR'] ? false : 'cyan',
  });
  return {
    onStep: (step) => {
      // The spinner and the last column: some terminals wrap once it is written.
      spinner.text = stepText(step).slice(0, Math.max(0, stream.columns - 3));
      if (!spinner.isSpinning) spinner.start();
    },
    end: () => void spinner.stop(),
  };
}

function stepText({ name, run, runs, done, total, etaSeconds }: Step): string {
  return `[${done + 1}/${total}, eta ${formatSeconds(etaSeconds)}] ${name}, run ${run} of ${runs}`;
}
