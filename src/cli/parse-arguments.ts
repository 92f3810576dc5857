import yargs, { type Argv } from 'yargs';
import {
  checkCommand,
  checkFlags,
  checkWords,
  longOptions,
  refusalOf,
  unknownOption,
  valueMissing,
} from './check-arguments.js';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand } from './commands.js';
import { UsageError } from './failure.js';
import { isFlag, type NumberRule, type OptionSpec, type OptionValues } from './options.js';

/** A command line that has the form its command asks for. */
export interface ParsedArguments {
  readonly command: CommandSpec;
  /** Whether the line names the command; a line without one pulls. */
  readonly named: boolean;
  readonly options: OptionValues;
  readonly words: readonly string[];
}

/** The value of an option. */
type Value = string | number | boolean | readonly string[] | readonly number[];

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

/** Anywhere on a line it makes yargs complete and not parse. */
const YARGS_COMPLETION = '--get-yargs-completions';

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
  if (longOptions(argv).includes(YARGS_COMPLETION)) throw unknownOption(YARGS_COMPLETION, command);
  tree
    // Options may stand before the command: which take no value must be known to find it.
    .boolean(flagsOn(argv))
    .alias(fieldByName(ALL_FLAGS, 'alias'))
    .strictOptions()
    .middleware((given) => {
      const { _: words, '--': more = [] } = given as unknown as Given;
      checkCommand([...words, ...more], command);
      checkFlags(argv, command);
    }, true)
    .fail((message, error) => {
      throw error instanceof UsageError ? error : refusalOf(message, argv, command);
    })
    .parse();
  return parsed!;
}

/** The names of flags, without those that take a value in the command of the line. */
function flagsOn(argv: readonly string[]): string[] {
  const command = findCommand(argv.find((word) => !word.startsWith('-')));
  const valued = command?.options.filter((option) => !isFlag(option)).map(({ name }) => name) ?? [];
  return [...new Set(ALL_FLAGS.map(({ name }) => name))].filter((name) => !valued.includes(name));
}

interface TreeHooks {
  /** Called with the command of the line before its options are read. */
  readonly onCommand: (command: CommandSpec) => void;
  /** Called once yargs has validated the line. */
  readonly onParsed: (given: Given) => void;
}

function commandTree(argv: readonly string[], hooks: TreeHooks): Argv {
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
        hooks.onCommand(command);
        return addOptions(inner, options);
      },
      (given) => hooks.onParsed(given as unknown as Given),
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
  const values: Record<string, Value> = {};
  for (const option of command.options) {
    const { name, field = name } = option;
    if (given[name] !== undefined) values[field] = readValue(option, given[name]);
  }
  // Not by `implies`, to which `--password-stdin=false` is given.
  for (const { name, needs } of command.options) {
    if (needs === undefined || !values[name] || values[needs]) continue;
    throw new UsageError(`--${name} needs --${needs}`, `write --${name} and --${needs}, or neither`);
  }
  return values as OptionValues;
}

/**
 * The value of an option from what yargs read: a list for flags and for options given more than
 * once.
 * @throws UsageError when it is given twice, empty or not a number that the option takes
 */
function readValue(option: OptionSpec, read: unknown): Value {
  const { name, list } = option;
  const [value, again] = [read].flat() as (string | boolean)[];
  if (again !== undefined) {
    throw new UsageError(`--${name} is given twice`, 'give it once; nothing was done');
  }
  if (typeof value === 'boolean' && isFlag(option)) return value;
  if (typeof value !== 'string' || value === '') throw valueMissing(option);
  if (list === undefined) return readWord(option, value);
  const values = value.split(',').map((word) => readWord(option, word.trim()));
  if (values.includes('')) throw new UsageError(`--${name} has an empty word`, `write --${name} like a,b`);
  return [...new Set(values)] as readonly string[] | readonly number[];
}

function readWord(option: OptionSpec, value: string): string | number {
  const { name, placeholder, number } = option;
  if (number === undefined) return value;
  const parsed = readNumber(value, number);
  if (parsed !== undefined) return parsed;
  throw new UsageError(
    `--${name} must be ${describeNumber(number)}, not "${value}"`,
    `write --${name} ${placeholder}`,
  );
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const POWERS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

const READERS: Readonly<Record<NumberRule['kind'], (text: string) => number | undefined>> = {
  whole: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : undefined),
  decimal: (text) => (/^(\d{1,15}(\.\d{0,9})?|\.\d{1,9})$/.test(text) ? Number(text) : undefined),
  bytes: (text) => {
    const [, digits, letter = ''] = /^(\d{1,15}(?:\.\d{1,9})?)([KMGkmg]?)$/.exec(text) ?? [];
    return digits === undefined ? undefined : Math.round(Number(digits) * POWERS[letter.toUpperCase()]!);
  },
  duration: (text) => {
    const [, digits, unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
    return digits === undefined ? undefined : Number(digits) * SECONDS[unit]!;
  },
};

/**
 * The number that `text` states, or undefined when it states none that the rule allows. Only plain
 * decimal digits count: no sign, no exponent, no hexadecimal. Bytes may end in K, M or G, powers of
 * 1024, and are rounded to a whole; a duration is a whole number with its unit, and becomes
 * seconds.
 */
export function readNumber(text: string, rule: NumberRule): number | undefined {
  const value = READERS[rule.kind](text);
  return value !== undefined && value >= rule.min && value <= rule.max ? value : undefined;
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
