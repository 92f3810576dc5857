import {
  COMMAND_WORDS,
  COMMANDS,
  type CommandSpec,
  DEFAULT_COMMAND,
  findCommand,
  usageOf,
} from './commands.js';
import { nearest } from './edit-distance.js';
import { formatList } from './format-text.js';
import { describeNumber, readNumber } from './numbers.js';
import type { OptionSpec } from './options.js';
import { type GivenOption, scanArguments } from './scan-arguments.js';
import { UsageError } from './usage-error.js';

/** A command line without a mistake that its form can show. */
export interface CheckedArguments {
  readonly command: CommandSpec;
  /** The command was named, not understood. */
  readonly named: boolean;
  /** By full name; a flag is `true` or `false`. */
  readonly options: ReadonlyMap<string, string>;
  readonly words: readonly string[];
}

/** `expotr` is two edits from `export`; an image so named is one word more to type. */
const COMMAND_EDITS = 2;
/** `--paltfrom` is four edits from `--platform`, but beyond three most guesses are wrong. */
const OPTION_EDITS = 3;

/**
 * The command line, checked: no unknown or repeated option, no value missing or out of range, as many words as the
 * command takes, and no first word that is nearly a command's name. yargs would find less, say it worse, and cost
 * 62 ms before the first word.
 * @throws UsageError
 */
export function checkArguments(argv: readonly string[]): CheckedArguments {
  const { options: given, words } = scanArguments(argv);
  const help = words[0] === 'help' || given.some(({ spec }) => spec?.name === 'help');
  const spoken = words[0] === 'help' ? words.slice(1) : words;
  const command = findCommand(spoken[0]);
  const checked = command ?? findCommand(DEFAULT_COMMAND)!;
  const rest = command === undefined ? spoken : spoken.slice(1);
  if (command === undefined) refuseNearCommand(spoken[0]);
  const options = new Map<string, string>();
  for (const option of given) options.set(...checkOption(option, checked, options));
  checkTogether(options, checked);
  if (help) options.set('help', 'true');
  else if (!options.has('version')) checkWords(checked, rest, command !== undefined);
  return { command: checked, named: command !== undefined, options, words: rest };
}

/** @throws UsageError when `word` is nearly a command: it must not be pulled as an image */
function refuseNearCommand(word: string | undefined): void {
  // A reference that says more than a short name is meant as one.
  if (word === undefined || /[/:@.]/.test(word)) return;
  const command = nearest(word.toLowerCase(), COMMAND_WORDS, COMMAND_EDITS);
  if (command === undefined) return;
  const insist = `to pull an image of that name: zpull pull ${word}`;
  if (command !== word) {
    throw new UsageError(`"${word}" is no command; did you mean "${command}"?`, insist);
  }
  throw new UsageError(`this version has no command "${word}"`, `zpull --help lists the commands; ${insist}`);
}

function checkOption(
  option: GivenOption,
  command: CommandSpec,
  before: ReadonlyMap<string, string>,
): [name: string, value: string] {
  const { spec, typed } = option;
  if (spec === undefined || !command.options.includes(spec)) throw unknownOption(option, command);
  if (before.has(spec.name)) {
    throw new UsageError(`${typed} is given twice`, 'give it once; nothing was done');
  }
  return [spec.name, spec.placeholder === undefined ? flagValue(option) : checkValue(option, spec)];
}

function unknownOption({ spec, typed }: GivenOption, command: CommandSpec): UsageError {
  const message = `zpull ${command.name} has no option ${typed}`;
  if (spec !== undefined) {
    const owners = COMMANDS.filter(({ options }) => options.includes(spec)).map(
      ({ name }) => `zpull ${name}`,
    );
    return new UsageError(message, `it is an option of ${formatList(owners)}`);
  }
  const names = command.options.map(({ name }) => name);
  const word = typed.replace(/^-+/, '');
  const guess =
    (word.length > 1 ? names.find((name) => name.startsWith(word)) : undefined) ??
    nearest(word, names, Math.min(OPTION_EDITS, Math.floor(word.length / 2)));
  const ask = `zpull ${command.name} --help lists them`;
  return new UsageError(message, guess === undefined ? ask : `did you mean --${guess}? ${ask}`);
}

function flagValue({ typed, value, next }: GivenOption): string {
  if (value === undefined && (next === 'true' || next === 'false')) {
    throw new UsageError(`${typed} takes its value after an equals sign`, `write ${typed}=${next}`);
  }
  if (value !== undefined && value !== 'true' && value !== 'false') {
    throw new UsageError(
      `${typed} must be true or false, not "${value}"`,
      `write ${typed} or ${typed}=false`,
    );
  }
  return value ?? 'true';
}

function checkValue({ typed, value }: GivenOption, spec: OptionSpec): string {
  const { placeholder = '', choices, number } = spec;
  if (value === undefined || value === '') {
    throw new UsageError(`${typed} needs a value`, `write ${typed} ${placeholder}`);
  }
  if (choices !== undefined && !choices.includes(value)) {
    const listed = choices.join(', ');
    throw new UsageError(`${typed} cannot be "${value}"`, `it is one of ${listed}`);
  }
  if (number !== undefined && readNumber(value, number) === undefined) {
    const wanted = describeNumber(number);
    throw new UsageError(`${typed} must be ${wanted}, not "${value}"`, `write ${typed} ${placeholder}`);
  }
  return value;
}

/** Options that say nothing alone, and options that contradict each other. */
function checkTogether(options: ReadonlyMap<string, string>, command: CommandSpec): void {
  const isGiven = (name: string): boolean => (options.get(name) ?? 'false') !== 'false';
  for (const { name, needs, excludes } of command.options) {
    if (!isGiven(name)) continue;
    if (needs !== undefined && !isGiven(needs)) {
      throw new UsageError(`--${name} needs --${needs}`, `write --${name} and --${needs}, or neither`);
    }
    if (excludes !== undefined && isGiven(excludes)) {
      throw new UsageError(`--${name} and --${excludes} are both given`, 'give one of them');
    }
  }
}

function checkWords(command: CommandSpec, words: readonly string[], named: boolean): void {
  const { name, words: specs } = command;
  const hint = `usage: ${usageOf(command)}; zpull ${name} --help shows more`;
  const missing = specs[words.length];
  if (missing !== undefined && missing.optional !== true) {
    if (!named && words.length === 0) {
      throw new UsageError('no image is named', 'usage: zpull IMAGE…; zpull --help shows more');
    }
    throw new UsageError(`zpull ${name} needs ${missing.name}`, hint);
  }
  const extra = words[specs.length];
  if (extra !== undefined && specs.at(-1)?.repeats !== true) {
    throw new UsageError(`zpull ${name} does not take "${extra}"`, hint);
  }
  for (const [at, word] of words.entries()) {
    const { choices } = specs[at] ?? {};
    if (word === '') throw new UsageError(`zpull ${name} got an empty word`, hint);
    if (choices !== undefined && !choices.includes(word)) {
      throw new UsageError(`zpull ${name} has no action "${word}"`, `there is: ${choices.join(', ')}`);
    }
  }
}
