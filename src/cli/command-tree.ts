import yargs, { type Argv, type CompletionCallback, type Options } from 'yargs';
import type { CheckedArguments } from './check-arguments.js';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand } from './commands.js';
import { readNumber } from './numbers.js';
import type { OptionSpec, OptionValues } from './options.js';
import { UsageError } from './usage-error.js';

/** A command at work: its exit code. */
type RunCommand = (words: readonly string[], options: OptionValues) => Promise<number>;

type Purpose = 'run' | 'help' | 'completion';

/** Wide enough for an option and its sentence; help in a pipe has no terminal to ask. */
const HELP_COLUMNS = 100;

/** Each command's code, loaded when it runs: help and completion need none of it. */
const RUN: Readonly<Record<Exclude<CommandSpec['name'], 'completion'>, () => Promise<RunCommand>>> = {
  pull: async () => (await import('./commands/pull.js')).runPull,
  export: async () => (await import('./commands/export.js')).runExport,
  store: async () => (await import('./commands/store.js')).runStore,
  serve: async () => (await import('./commands/serve.js')).runServe,
  demo: async () => (await import('./commands/demo.js')).runDemo,
};

/** Runs what a checked command line asks for, help and completion included; its exit code. */
export async function runCommand({ command, named, options, words }: CheckedArguments): Promise<number> {
  if (options.has('help')) return parse(named ? [command.name, '--help'] : ['--help'], 'help');
  if (command.name === 'completion') return parse([command.name], 'completion');
  // Every value in one argument with its name: yargs cannot read a line differently than it was checked.
  const values = [...options].map(([name, value]) => `--${name}=${value}`);
  return parse([command.name, ...values, '--', ...words], 'run');
}

/** Answers the completion script's question: what may stand next on this command line. */
export async function complete(argv: readonly string[]): Promise<number> {
  return parse(argv, 'completion');
}

/** yargs takes the words `help` and `completion` for itself wherever they stand: only where they are asked for. */
async function parse(argv: readonly string[], purpose: Purpose): Promise<number> {
  let exitCode = 0;
  const tree = createTree(argv);
  for (const spec of COMMANDS) {
    if (spec.name === 'completion') continue;
    const load = RUN[spec.name];
    tree.command({
      // The words of a checked line come after `--`, where yargs leaves them as they are.
      command: purpose === 'run' ? spec.name : commandLine(spec),
      describe: spec.help,
      builder: (command) => describe(command, spec, purpose),
      handler: async (parsed) => {
        const run = await load();
        exitCode = await run((parsed['--'] ?? []) as string[], parsed as OptionValues);
      },
    });
  }
  if (purpose !== 'run') tree.completion('completion', findCommand('completion')!.help, completeLongNames);
  if (purpose === 'help') tree.help('help');
  await tree.parseAsync();
  return exitCode;
}

function createTree(argv: readonly string[]): Argv {
  return yargs([...argv])
    .scriptName('zpull')
    .usage('zpull: container images by parallel ranges, verified, resumable')
    .detectLocale(false)
    .parserConfiguration({
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'populate--': true,
    })
    .help(false)
    .version(false)
    .exitProcess(false)
    .wrap(Math.min(process.stdout.columns ?? HELP_COLUMNS, HELP_COLUMNS))
    .fail((message, error) => {
      throw error ?? new UsageError(message, 'zpull --help shows the usage');
    });
}

/** As yargs wants it: `export <IMAGE> <DEST>`; with an alias when it is the default command. */
function commandLine({ name, words }: CommandSpec): string[] {
  const line = [name, ...words.map((word) => (word.repeats ? `<${word.name}..>` : `<${word.name}>`))].join(
    ' ',
  );
  return name === DEFAULT_COMMAND ? [line, '$0'] : [line];
}

function describe(command: Argv, spec: CommandSpec, purpose: Purpose): Argv {
  for (const { name, help, choices } of purpose === 'run' ? [] : spec.words) {
    command.positional(name, { type: 'string', describe: help, ...(choices && { choices }) });
  }
  for (const [line, meaning] of spec.examples) command.example(line, meaning);
  return command.options(
    Object.fromEntries(spec.options.map((option) => [option.name, yargsOption(option)])),
  );
}

function yargsOption({ alias, placeholder, help, preset, choices, number }: OptionSpec): Options {
  return {
    type: placeholder === undefined ? 'boolean' : 'string',
    describe: placeholder === undefined ? help : `${placeholder}: ${help}`,
    ...(alias && { alias }),
    ...(preset && { defaultDescription: preset }),
    ...(choices && { choices }),
    ...(number && { coerce: (text: string) => readNumber(text, number) }),
  };
}

/** What yargs would offer, but for its `--q`: a name of one letter has one dash. */
function completeLongNames(
  _word: string,
  _parsed: unknown,
  offer: (onOffer: CompletionCallback) => unknown,
  done: (names: string[]) => unknown,
): void {
  offer((_error, names) => {
    done((names ?? []).filter((name) => !/^--.$/.test(name)));
  });
}
