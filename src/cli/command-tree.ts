import yargs, { type Argv, type CompletionCallback, type Options } from 'yargs';
import type { CheckedArguments } from './check-arguments.js';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand } from './commands.js';
import { readNumber } from './numbers.js';
import type { OptionSpec, OptionValues } from './options.js';
import { UsageError } from './usage-error.js';

/** A command at work: its exit code. */
type RunCommand = (words: readonly string[], options: OptionValues) => Promise<number>;

/** Each command's code, loaded when it runs: completion needs none of it. */
const RUN: Readonly<Record<Exclude<CommandSpec['name'], 'completion'>, () => Promise<RunCommand>>> = {
  pull: async () => (await import('./commands/pull.js')).runPull,
  export: async () => (await import('./commands/export.js')).runExport,
  store: async () => (await import('./commands/store.js')).runStore,
  serve: async () => (await import('./commands/serve.js')).runServe,
  demo: async () => (await import('./commands/demo.js')).runDemo,
};

/** Runs a checked command line; its exit code. */
export async function runCommand({ command, options, words }: CheckedArguments): Promise<number> {
  if (command.name === 'completion') return parse([command.name], 'completion');
  // Every value in one argument with its name: yargs cannot read a line differently than it was checked.
  const values = [...options].map(([name, value]) => `--${name}=${value}`);
  return parse([command.name, ...values, '--', ...words], 'run');
}

/** Answers the completion script's question: what may stand next on this command line. */
export async function complete(argv: readonly string[]): Promise<number> {
  return parse(argv, 'completion');
}

/** yargs takes the word `completion` for itself wherever it stands: only where it is asked for. */
async function parse(argv: readonly string[], purpose: 'run' | 'completion'): Promise<number> {
  let exitCode = 0;
  const tree = createTree(argv);
  for (const spec of COMMANDS) {
    if (spec.name === 'completion') continue;
    const load = RUN[spec.name];
    tree.command({
      command: spec.name === DEFAULT_COMMAND ? [spec.name, '$0'] : spec.name,
      describe: spec.help,
      builder: yargsOptions(spec),
      handler: async (parsed) => {
        const run = await load();
        // The words of a checked line come after `--`, where yargs leaves them as they are.
        exitCode = await run((parsed['--'] ?? []) as string[], parsed as OptionValues);
      },
    });
  }
  if (purpose === 'completion') {
    tree.completion('completion', findCommand('completion')!.help, completeLongNames);
  }
  await tree.parseAsync();
  return exitCode;
}

function createTree(argv: readonly string[]): Argv {
  return yargs([...argv])
    .scriptName('zpull')
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
    .fail((message, error) => {
      throw error ?? new UsageError(message, 'zpull --help shows the usage');
    });
}

function yargsOptions({ options }: CommandSpec): Record<string, Options> {
  return Object.fromEntries(options.map((option) => [option.name, yargsOption(option)]));
}

function yargsOption({ alias, placeholder, help, choices, number }: OptionSpec): Options {
  return {
    type: placeholder === undefined ? 'boolean' : 'string',
    describe: help,
    ...(alias && { alias }),
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
