import { readFileSync } from 'node:fs';
import { checkArguments } from './check-arguments.js';
import { helpText } from './help.js';
import { failureOf, reportFailure } from './report-failure.js';
import { guardStreams } from './streams.js';

/** The width of help where there is no terminal. */
const HELP_COLUMNS = 100;

/** Runs one command line (without node and script) and sets the process's exit code. Loads what it needs, no more. */
export async function main(argv: readonly string[]): Promise<void> {
  guardStreams();
  try {
    process.exitCode = await run(argv);
  } catch (error) {
    const failure = await failureOf(error);
    reportFailure(failure, { json: hasFlag(argv, '--json'), debug: hasFlag(argv, '--debug') });
    process.exitCode = failure.exitCode;
  }
}

async function run(argv: readonly string[]): Promise<number> {
  if (argv[0] === '--get-yargs-completions') {
    const { complete } = await import('./completion.js');
    return complete(argv);
  }
  const checked = checkArguments(argv);
  const { command, named, options } = checked;
  if (options.has('help')) {
    process.stdout.write(helpText(named ? command : undefined, process.stdout.columns || HELP_COLUMNS));
    return 0;
  }
  if (options.has('version')) {
    process.stdout.write(`zpull ${packageVersion()}\n`);
    return 0;
  }
  const { runCommand } = await import('./run-command.js');
  return runCommand(checked);
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}

/** Whether a flag stands on a command line that may not even be well-formed. */
function hasFlag(argv: readonly string[], flag: string): boolean {
  return argv.includes(flag) || argv.includes(`${flag}=true`);
}
