import yargs, { type Argv } from 'yargs';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand, findOption, usageOf } from './commands.js';
import { UsageError } from './failure.js';
import { isFlag, type NumberRule, type OptionSpec, type OptionValues } from './options.js';
import { refuseMisspelledCommand, unknownOption } from './suggest.js';

/** A command line that has the form its command asks for. */
export interface ParsedArguments {
  readonly command: CommandSpec;
  /** Whether the line names the command; a line without one pulls. */
  readonly named: boolean;
  readonly options: OptionValues;
  readonly words: readonly string[];
}

/** What yargs reads from a command line: options by name, and words. */
type Given = Readonly<Record<string, unknown>> & {
  readonly _: readonly string[];
  /** The words after `--`, until they are put behind those in `_`. */
  readonly '--'?: readonly string[];
};

const PARSER_CONFIGURATION = {
  // `--no-same-owner` is the name of an option.
  'boolean-negation': false,
  'camel-case-expansion': false,
  'dot-notation': false,
  'greedy-arrays': false,
  // `1.10` is not 1.1.
  'parse-numbers': false,
  'parse-positional-numbers': false,
};

const ALL_FLAGS = COMMANDS.flatMap(({ options }) => options.filter(isFlag));

/** The completion script begins its question with it. */
export const COMPLETION_OPTION = '--get-yargs-completions';

/**
 * Parses a command line (without node and script). yargs handles commands, options, choices and
 * conflicts; this file checks what yargs does not know or would read in another sense.
 * @throws UsageError
 */
export function parseArguments(argv: readonly string[]): ParsedArguments {
  let parsed: ParsedArguments | undefined;
  let command = findCommand(DEFAULT_COMMAND)!;
  const tree = commandTree(argv, {
    onCommand: (found) => {
      command = found;
    },
    onParsed: (given) => {
      parsed = checkGiven(given, command);
    },
  });
  // Anywhere on a line it makes yargs complete and not parse.
  if (longOptions(argv).includes(COMPLETION_OPTION)) throw unknownOption(COMPLETION_OPTION, command);
  tree
    // Options may stand before the command: which take no value must be known to find it.
    .boolean([...new Set(ALL_FLAGS.map(({ name }) => name))])
    .alias(fieldByName(ALL_FLAGS, 'alias'))
    .strictOptions()
    .middleware((given) => {
      checkCommand(given as unknown as Given, command);
      checkFlags(argv, command);
    }, true)
    .fail((message, error) => {
      throw error instanceof UsageError ? error : refusalOf(message, argv, command);
    })
    .parse();
  return parsed!;
}

/** Prints the completion script for the shell in $SHELL. */
export function printCompletionScript(): void {
  commandTree([]).showCompletionScript();
}

/** Answers the completion script: prints what may come next on the command line in `argv`. */
export async function printCompletions(argv: readonly string[]): Promise<void> {
  await commandTree(argv).completion('completion', findCommand('completion')!.help).parseAsync();
}

interface TreeHooks {
  /** Called with the command of the line before its options are read. */
  readonly onCommand: (command: CommandSpec) => void;
  /** Called once yargs has validated the line. */
  readonly onParsed: (given: Given) => void;
}

function commandTree(argv: readonly string[], hooks?: TreeHooks): Argv {
  const tree = yargs([...argv])
    .scriptName('zpull')
    .detectLocale(false)
    .parserConfiguration(PARSER_CONFIGURATION)
    .help(false)
    .version(false)
    .exitProcess(false);
  for (const command of COMMANDS) {
    const { name, help, options } = command;
    tree.command(
      name === DEFAULT_COMMAND ? [name, '$0'] : name,
      help,
      (inner) => {
        hooks?.onCommand(command);
        return addOptions(inner, options);
      },
      (given) => hooks?.onParsed(given as unknown as Given),
    );
  }
  return tree;
}

/**
 * Adds all options at once: one by one it takes 4 ms, as yargs checks the arguments of each call.
 */
function addOptions(tree: Argv, options: readonly OptionSpec[]): Argv {
  const flags = options.filter(isFlag).map(({ name }) => name);
  const others = options.filter((option) => !isFlag(option)).map(({ name }) => name);
  return (
    tree
      .describe(fieldByName(options, 'help'))
      .alias(fieldByName(options, 'alias'))
      .boolean(flags)
      // To find a flag given twice: of others yargs keeps the last.
      .array(flags)
      .string(others)
      .requiresArg(others)
      .choices(fieldByName(options, 'choices'))
      .conflicts(fieldByName(options, 'excludes'))
  );
}

function fieldByName<Field extends keyof OptionSpec>(
  options: readonly OptionSpec[],
  field: Field,
): Record<string, NonNullable<OptionSpec[Field]>> {
  const given = options.filter((option) => option[field] !== undefined);
  return Object.fromEntries(given.map((option) => [option.name, option[field]!]));
}

/** Refuses a first word that is nearly a command. @throws UsageError */
function checkCommand({ _: words, '--': more = [] }: Given, command: CommandSpec): void {
  const [first, second] = [...words, ...more];
  const word = first === 'help' && findCommand(second) === undefined ? second : first;
  if (word !== command.name && word !== 'help') refuseMisspelledCommand(word);
}

/**
 * Refuses flags that yargs would misread: it takes `--json=no` for false, the second word of
 * `--json true` for a value, and `-q5` for `-q=5`.
 * @throws UsageError
 */
function checkFlags(argv: readonly string[], command: CommandSpec): void {
  const line = beforeDoubleDash(argv);
  for (const [index, argument] of line.entries()) {
    const [typed = '', value] = argument.split(/=(.*)/s);
    if (/^-(?![-\d]|\.\d)./.test(argument)) checkLetters(argument, command);
    const option = findOption(typed);
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
  const isKnown = letters.every((letter) => findOption(letter) !== undefined);
  const foreign = letters.find((letter) => !command.options.includes(findOption(letter)!));
  if (!isKnown) throw unknownOption(argument, command);
  if (foreign !== undefined) throw unknownOption(foreign, command);
}

function isBoolean(text: string | undefined): boolean {
  return text === 'true' || text === 'false';
}

/** The names of the options on a line, with their dashes and without values. */
function longOptions(argv: readonly string[]): string[] {
  return beforeDoubleDash(argv)
    .filter((argument) => argument.startsWith('--'))
    .map((argument) => argument.replace(/=.*/s, ''));
}

function beforeDoubleDash(argv: readonly string[]): readonly string[] {
  const end = argv.indexOf('--');
  return end < 0 ? argv : argv.slice(0, end);
}

/** What yargs refuses, said as zpull does, with a hint. */
function refusalOf(message: string, argv: readonly string[], command: CommandSpec): UsageError {
  const [, valueless] = /^Not enough arguments following: (\S+)$/.exec(message) ?? [];
  if (valueless !== undefined) return valueMissing(findOption(`--${valueless}`)!);
  const [, one, other] = /^Arguments (\S+) and (\S+) are mutually exclusive$/.exec(message) ?? [];
  if (one !== undefined) return new UsageError(`--${one} and --${other} are both given`, 'give one of them');
  const [, name, value, choices = ''] = /Argument: (\S+), Given: (.*), Choices: (.*)$/m.exec(message) ?? [];
  if (value === '""') return valueMissing(findOption(`--${name}`)!);
  if (name !== undefined) {
    return new UsageError(`--${name} cannot be ${value}`, `it is one of ${choices.replaceAll('"', '')}`);
  }
  const typed = longOptions(argv).find((option) => !command.options.includes(findOption(option)!));
  if (typed !== undefined) return unknownOption(typed, command);
  return new UsageError(message, `zpull ${command.name} --help shows what may be written`);
}

/**
 * What the line says, once its values and words are checked.
 * @throws UsageError
 */
function checkGiven(given: Given, command: CommandSpec): ParsedArguments {
  const [first, second] = given._;
  const named = first === command.name;
  const options = readValues(given, command);
  if (!named && first === 'help') {
    const about = findCommand(second);
    return {
      command: about ?? command,
      named: about !== undefined,
      options: { ...options, help: true },
      words: [],
    };
  }
  const words = named ? given._.slice(1) : given._;
  if (options.help !== true && options.version !== true) checkWords(command, words, named);
  return { command, named, options, words };
}

function readValues(given: Given, command: CommandSpec): OptionValues {
  const values: Record<string, string | number | boolean> = {};
  for (const option of command.options) {
    if (given[option.name] !== undefined) values[option.name] = readValue(option, given[option.name]);
  }
  // Not by `implies`, to which `--password-stdin=false` is given.
  for (const { name, needs } of command.options) {
    if (needs === undefined || !values[name] || values[needs]) continue;
    throw new UsageError(`--${name} needs --${needs}`, `write --${name} and --${needs}, or neither`);
  }
  return values as OptionValues;
}

/** Not by yargs's positionals, which lose words that begin with a dash after `--`. */
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

/**
 * The value of an option from what yargs read: a list for flags and for options given more than
 * once.
 * @throws UsageError when it is given twice, empty or not a number that the option takes
 */
function readValue(option: OptionSpec, read: unknown): string | number | boolean {
  const { name, placeholder, number } = option;
  const [value, again] = [read].flat() as (string | boolean)[];
  if (again !== undefined) {
    throw new UsageError(`--${name} is given twice`, 'give it once; nothing was done');
  }
  if (typeof value === 'boolean') return value;
  if (value === undefined || value === '') throw valueMissing(option);
  if (number === undefined) return value;
  const parsed = readNumber(value, number);
  if (parsed !== undefined) return parsed;
  throw new UsageError(
    `--${name} must be ${describeNumber(number)}, not "${value}"`,
    `write --${name} ${placeholder}`,
  );
}

function valueMissing({ name, placeholder }: OptionSpec): UsageError {
  return new UsageError(`--${name} needs a value`, `write --${name} ${placeholder}`);
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const POWERS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/**
 * The number that `text` states, or undefined when it states none that the rule allows. Only plain
 * decimal digits count: no sign, no exponent, no hexadecimal. Bytes may end in K, M or G, powers of
 * 1024, and are rounded to a whole; a duration is a whole number with its unit, and becomes
 * seconds.
 */
export function readNumber(text: string, rule: NumberRule): number | undefined {
  const value = readKind(text, rule.kind);
  return value !== undefined && value >= rule.min && value <= rule.max ? value : undefined;
}

function readKind(text: string, kind: NumberRule['kind']): number | undefined {
  if (kind === 'bytes') return readBytes(text);
  return kind === 'duration' ? readDuration(text) : readPlain(text, kind);
}

/** What the rule asks for, to follow "must be". */
export function describeNumber(rule: NumberRule): string {
  if (rule.kind === 'duration') return 'a whole number with s, m, h or d behind it, like 30d';
  if (rule.kind === 'bytes')
    return 'a number of bytes, which may end in K, M or G (powers of 1024), like 20M';
  const kind = rule.kind === 'whole' ? 'a whole number' : 'a number';
  const unit = rule.unit === undefined ? '' : ` of ${rule.unit}`;
  return `${kind}${unit} from ${rule.min} to ${rule.max}`;
}

function readPlain(text: string, kind: 'whole' | 'decimal'): number | undefined {
  const form = kind === 'whole' ? /^\d{1,15}$/ : /^(\d{1,15}(\.\d{0,9})?|\.\d{1,9})$/;
  return form.test(text) ? Number(text) : undefined;
}

function readBytes(text: string): number | undefined {
  const [, digits, letter = ''] = /^(\d{1,15}(?:\.\d{1,9})?)([KMGkmg]?)$/.exec(text) ?? [];
  if (digits === undefined) return undefined;
  return Math.round(Number(digits) * POWERS[letter.toUpperCase()]!);
}

function readDuration(text: string): number | undefined {
  const [, digits, unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * SECONDS[unit]!;
}
