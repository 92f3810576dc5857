import { readFileSync } from 'node:fs';
import { type CommandSpec, helpText } from './commands.js';
import { COMPLETION_OPTION, completionScript } from './completion-scripts.js';
import { aboutImage, failureOf, reportFailure } from './failure.js';
import type { OptionValues } from './options.js';
import { parseArguments } from './parse-arguments.js';

/** The width of help where there is no terminal. */
const HELP_COLUMNS = 100;
/** The shell's own exit code for a command that cannot write its result. */
const WRITE_FAILED_EXIT_CODE = 1;

/** Runs a command; returns its exit code. */
type RunCommand = (words: readonly string[], options: OptionValues) => Promise<number>;

/** Each command's code, loaded when it runs. */
const RUN: Readonly<Record<CommandSpec['name'], () => Promise<RunCommand>>> = {
  pull: async () => (await import('./commands/pull.js')).runPull,
  plan: async () => (await import('./commands/inspect.js')).runPlan,
  inspect: async () => (await import('./commands/inspect.js')).runInspect,
  export: async () => (await import('./commands/export.js')).runExport,
  copy: async () => (await import('./commands/copy.js')).runCopy,
  tags: async () => (await import('./commands/tags.js')).runTags,
  store: async () => (await import('./commands/store.js')).runStore,
  serve: async () => (await import('./commands/serve.js')).runServe,
  bench: async () => (await import('./commands/bench.js')).runBench,
  demo: async () => (await import('./commands/demo.js')).runDemo,
  completion:
    async () =>
    async ([shell]) => {
      process.stdout.write(completionScript(shell, process.env));
      return 0;
    },
};

/** Runs one command line (without node and script) and sets the process's exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  guardStreams();
  try {
    process.exitCode = await run(argv);
  } catch (error) {
    const failure = await failureOf(error);
    reportFailure(failure, { json: printsJson(argv), debug: hasFlag(argv, '--debug') });
    process.exitCode = failure.exitCode;
  }
}

async function run(argv: readonly string[]): Promise<number> {
  if (argv[0] === COMPLETION_OPTION) {
    const { printCompletions } = await import('./completion.js');
    printCompletions(argv.slice(1));
    return 0;
  }
  // Alone they need no parser, which takes 11 ms to build: an eighth of starting Node.
  const [only] = argv.length === 1 ? argv : [];
  if (only === '--version' || only === '-V') return printVersion();
  if (only === '--help' || only === '-h') return printHelp();
  const { command, named, options, words } = parseArguments(argv);
  if (options.help === true) return printHelp(named ? command : undefined);
  if (options.version === true) return printVersion();
  const runCommand = await RUN[command.name]();
  const image = soleImage(command, words);
  const result = () => runCommand(words, options);
  return image === undefined ? result() : aboutImage(image, result);
}

/** The image that all errors of a command are about, unless it has several. */
function soleImage({ words: [first] }: CommandSpec, words: readonly string[]): string | undefined {
  if (first?.name !== 'IMAGE') return undefined;
  return first.repeats === true && words.length > 1 ? undefined : words[0];
}

function printHelp(command?: CommandSpec): number {
  process.stdout.write(helpText(command, process.stdout.columns || HELP_COLUMNS));
  return 0;
}

function printVersion(): number {
  process.stdout.write(`zpull ${packageVersion()}\n`);
  return 0;
}

/**
 * A closed pipe on stdout ends the process quietly, as `head` expects; any other failure to write
 * the result (a full disk) is an error. A failure to write to stderr stops nothing.
 */
function guardStreams(): void {
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    process.stderr.write(`zpull: cannot write to standard output: ${error.message}\n`);
    process.stderr.write('hint: make room where the output goes, then run the same command again\n');
    process.exit(WRITE_FAILED_EXIT_CODE);
  });
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}

/** Whether an error is printed as JSON. `--json` of `bench` names a file. */
function printsJson(argv: readonly string[]): boolean {
  return hasFlag(argv, '--json') && argv.find((word) => !word.startsWith('-')) !== 'bench';
}

/** Whether a flag stands on a command line that may be malformed. */
function hasFlag(argv: readonly string[], flag: string): boolean {
  return argv.includes(flag) || argv.includes(`${flag}=true`);
}
