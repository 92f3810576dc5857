import yargs, { type CompletionCallback, type Options } from 'yargs';
import { COMMANDS, DEFAULT_COMMAND, findCommand } from './commands.js';
import type { OptionSpec } from './options.js';

/** Prints the completion script for the shell in $SHELL. */
export function printCompletion(): Promise<number> {
  return parse(['completion']);
}

/** Answers the script's question: what may stand next on this command line. */
export function complete(argv: readonly string[]): Promise<number> {
  return parse(argv);
}

/** yargs knows the commands for completion only: it costs 62 ms to load, as much as starting Node. */
async function parse(argv: readonly string[]): Promise<number> {
  const tree = yargs([...argv])
    .scriptName('zpull')
    .detectLocale(false)
    .help(false)
    .version(false)
    .exitProcess(false);
  for (const { name, help, options } of COMMANDS) {
    if (name === 'completion') continue;
    tree.command(
      name === DEFAULT_COMMAND ? [name, '$0'] : name,
      help,
      Object.fromEntries(options.map((option) => [option.name, yargsOption(option)])),
    );
  }
  tree.completion('completion', findCommand('completion')!.help, completeLongNames);
  await tree.parseAsync();
  return 0;
}

function yargsOption({ alias, placeholder, help, choices }: OptionSpec): Options {
  return {
    type: placeholder === undefined ? 'boolean' : 'string',
    describe: help,
    ...(alias && { alias }),
    ...(choices && { choices }),
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
