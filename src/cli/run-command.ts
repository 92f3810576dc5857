import type { CheckedArguments } from './check-arguments.js';
import type { CommandSpec } from './commands.js';
import { readNumber } from './numbers.js';
import type { OptionSpec, OptionValues } from './options.js';

/** A command at work: its exit code. */
type RunCommand = (words: readonly string[], options: OptionValues) => Promise<number>;

/** Each command's code, loaded when it runs. */
const RUN: Readonly<Record<CommandSpec['name'], () => Promise<RunCommand>>> = {
  pull: async () => (await import('./commands/pull.js')).runPull,
  plan: async () => (await import('./commands/inspect.js')).runPlan,
  inspect: async () => (await import('./commands/inspect.js')).runInspect,
  export: async () => (await import('./commands/export.js')).runExport,
  copy: async () => (await import('./commands/copy.js')).runCopy,
  store: async () => (await import('./commands/store.js')).runStore,
  serve: async () => (await import('./commands/serve.js')).runServe,
  demo: async () => (await import('./commands/demo.js')).runDemo,
  completion: async () => (await import('./completion.js')).printCompletion,
};

/** Runs a checked command line; its exit code. */
export async function runCommand({ command, options, words }: CheckedArguments): Promise<number> {
  const run = await RUN[command.name]();
  const values = command.options
    .filter(({ name }) => options.has(name))
    .map((spec) => [spec.name, optionValue(spec, options.get(spec.name)!)]);
  return run(words, Object.fromEntries(values) as OptionValues);
}

/** The value of an option that was checked already. */
function optionValue(
  { placeholder, number }: OptionSpec,
  text: string,
): string | number | boolean | undefined {
  if (placeholder === undefined) return text === 'true';
  return number === undefined ? text : readNumber(text, number);
}
