import { formatList } from '../api/figures.js';
import { COMMAND_WORDS, COMMANDS, type CommandSpec, findCommand, findOption, usageOf } from './commands.js';
import { UsageError } from './failure.js';
import { isFlag, type OptionSpec } from './options.js';
import { FOREIGN_OPTIONS, FOREIGN_VERBS, IMAGES_NEAR_COMMANDS } from './other-tools.js';

/** Refuses a first word that is nearly a command. @throws UsageError */
export function checkCommand([first, second]: readonly string[], command: CommandSpec): void {
  const word = first === 'help' && findCommand(second) === undefined ? second : first;
  if (word !== command.name && word !== 'help') refuseMisspelledCommand(word);
}

/**
 * Refuses flags that yargs would misread: it takes `--json=no` for false, the second word of
 * `--json true` for a value, and `-q5` for `-q=5`.
 * @throws UsageError
 */
export function checkFlags(argv: readonly string[], command: CommandSpec): void {
  const line = beforeDoubleDash(argv);
  for (const [index, argument] of line.entries()) {
    const [typed = '', value] = argument.split(/=(.*)/s);
    if (/^-(?![-\d]|\.\d)./.test(argument)) checkLetters(argument, command);
    const option = findOption(typed, command);
    if (option === undefined || !isFlag(option)) continue;
    if (!command.options.includes(option)) throw unknownOption(typed, command);
    const next = line[index + 1];
    if (value === undefined && isBoolean(next)) {
      throw new UsageError(`${typed} takes its value after an equals sign`, `write ${typed}=${next}`);
    }
    if (value !== undefined && !isBoolean(value)) {
      throw new UsageError(
        `${typed} must be true or false, not "${value}"`,
        `write ${typed} or ${typed}=false`,
      );
    }
  }
}

/** Letters that stand together, as in `-qv`, must be flags of the command. @throws UsageError */
function checkLetters(argument: string, command: CommandSpec): void {
  const letters = [...argument.slice(1)].map((letter) => `-${letter}`);
  const isKnown = letters.every((letter) => findOption(letter, command) !== undefined);
  const foreign = letters.find((letter) => !command.options.includes(findOption(letter, command)!));
  if (!isKnown) throw unknownOption(argument, command);
  if (foreign !== undefined) throw unknownOption(foreign, command);
}

function isBoolean(text: string | undefined): boolean {
  return text === 'true' || text === 'false';
}

/** The names of the options on a line, with their dashes and without values. */
export function longOptions(argv: readonly string[]): string[] {
  return beforeDoubleDash(argv)
    .filter((argument) => argument.startsWith('--'))
    .map((argument) => argument.replace(/=.*/s, ''));
}

function beforeDoubleDash(argv: readonly string[]): readonly string[] {
  const end = argv.indexOf('--');
  return end < 0 ? argv : argv.slice(0, end);
}

/** What yargs refuses, said as zpull does, with a hint. */
export function refusalOf(message: string, argv: readonly string[], command: CommandSpec): UsageError {
  const [, valueless] = /^Not enough arguments following: (\S+)$/.exec(message) ?? [];
  if (valueless !== undefined) return valueMissing(findOption(`--${valueless}`, command)!);
  const [, one, other] = /^Arguments (\S+) and (\S+) are mutually exclusive$/.exec(message) ?? [];
  if (one !== undefined) return new UsageError(`--${one} and --${other} are both given`, 'give one of them');
  const [, name, value, choices = ''] = /Argument: (\S+), Given: (.*), Choices: (.*)$/m.exec(message) ?? [];
  if (value === '""') return valueMissing(findOption(`--${name}`, command)!);
  if (name !== undefined) {
    return new UsageError(`--${name} cannot be ${value}`, `it is one of ${choices.replaceAll('"', '')}`);
  }
  const typed = longOptions(argv).find((option) => !command.options.includes(findOption(option, command)!));
  if (typed !== undefined) return unknownOption(typed, command);
  return new UsageError(message, `zpull ${command.name} --help shows what may be written`);
}

/** Not by yargs's positionals, which lose words that begin with a dash after `--`. */
export function checkWords(command: CommandSpec, words: readonly string[], named: boolean): void {
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
    const { choices, name: what = '' } = specs[at] ?? {};
    if (word === '') throw new UsageError(`zpull ${name} got an empty word`, hint);
    if (choices !== undefined && !choices.includes(word)) {
      throw new UsageError(
        `zpull ${name} has no ${what.toLowerCase()} "${word}"`,
        `there is: ${choices.join(', ')}`,
      );
    }
  }
}

export function valueMissing({ name, placeholder }: OptionSpec): UsageError {
  return new UsageError(`--${name} needs a value`, `write --${name} ${placeholder}`);
}

/** `expotr` is two edits from `export`; more would refuse names of images. */
const COMMAND_EDITS = 2;
/** Two edits make half of a word of four letters: `nats` is two from `tags`. */
const SHORT_COMMAND_LENGTH = 4;
/** `--paltfrom` is four edits from `--platform`, but beyond three most guesses are wrong. */
const OPTION_EDITS = 3;
/** Longer words are no misspelled names, and need no table of distances. */
const MAX_LENGTH = 40;

/**
 * Refuses a first word that is a verb of another tool or nearly the name of a command, lest it be
 * pulled as an image. yargs suggests no command where there is a default one.
 * @throws UsageError
 */
function refuseMisspelledCommand(word: string | undefined): void {
  // A reference that says more than a short name is meant as one.
  if (word === undefined || /[/:@.]/.test(word) || IMAGES_NEAR_COMMANDS.has(word)) return;
  const insist = `to pull an image of that name: zpull pull ${word}`;
  const other = FOREIGN_VERBS.get(word);
  if (other !== undefined) throw new UsageError(`there is no command "${word}"`, `${other}; ${insist}`);
  const command = nearestCommand(word.toLowerCase());
  if (command === undefined) return;
  if (command !== word) {
    throw new UsageError(`"${word}" is no command; did you mean "${command}"?`, insist);
  }
  throw new UsageError(`the command "${word}" comes after --`, `write --, if at all, after it; ${insist}`);
}

function nearestCommand(word: string): string | undefined {
  const [short, long] = [COMMAND_WORDS.filter(isShort), COMMAND_WORDS.filter((name) => !isShort(name))];
  // `cp` is no image.
  return (
    nearest(word, short, word.length < SHORT_COMMAND_LENGTH ? COMMAND_EDITS : 1) ??
    nearest(word, long, COMMAND_EDITS)
  );
}

function isShort(name: string): boolean {
  return name.length <= SHORT_COMMAND_LENGTH;
}

/**
 * The refusal of an option that the command does not have: names the commands that have it, or the
 * nearest option.
 */
export function unknownOption(typed: string, command: CommandSpec): UsageError {
  const message = `zpull ${command.name} has no option ${typed}`;
  const spec = findOption(typed, command);
  if (spec !== undefined) {
    const isOwner = ({ options }: CommandSpec) => options.some(({ name }) => name === spec.name);
    const owners = COMMANDS.filter(isOwner).map(({ name }) => `zpull ${name}`);
    return new UsageError(message, `it is an option of ${formatList(owners)}`);
  }
  const word = typed.replace(/^-+/, '');
  const other = FOREIGN_OPTIONS.get(word);
  if (other !== undefined) return new UsageError(message, other);
  const names = command.options.map(({ name }) => name);
  const guess =
    (word.length > 1 ? names.find((name) => name.startsWith(word)) : undefined) ??
    nearest(word, names, Math.min(OPTION_EDITS, Math.floor(word.length / 2)));
  const list = `zpull ${command.name} --help lists them`;
  return new UsageError(message, guess === undefined ? list : `did you mean --${guess}? ${list}`);
}

/**
 * The candidate nearest to `word` by Levenshtein distance, of equals the first; undefined when all
 * are more than `limit` edits away.
 */
export function nearest(word: string, candidates: Iterable<string>, limit: number): string | undefined {
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(from: string, to: string): number {
  if (from.length > MAX_LENGTH || to.length > MAX_LENGTH) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (const [above, letter] of [...from].entries()) {
    const next = [above + 1];
    for (let column = 0; column < to.length; column++) {
      const replaced = row[column]! + (letter === to[column] ? 0 : 1);
      next.push(Math.min(replaced, row[column + 1]! + 1, next[column]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
