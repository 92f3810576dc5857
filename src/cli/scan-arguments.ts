import { COMMANDS } from './commands.js';
import type { OptionSpec } from './options.js';

/** An option as it stands on the command line. */
export interface GivenOption {
  /** Undefined: no command has such an option. */
  readonly spec: OptionSpec | undefined;
  /** As it was typed, without the value. */
  readonly typed: string;
  readonly value: string | undefined;
  /** The argument after it. */
  readonly next: string | undefined;
}

export interface ScannedArguments {
  readonly options: readonly GivenOption[];
  readonly words: readonly string[];
}

const BY_NAME = new Map<string, OptionSpec>();
for (const { options } of COMMANDS) {
  for (const option of options) {
    BY_NAME.set(`--${option.name}`, option);
    if (option.alias !== undefined) BY_NAME.set(`-${option.alias}`, option);
  }
}

/**
 * Takes a command line apart as GNU's getopt_long does: `--name=value`, `--name value`, flags of one letter together
 * (`-qv`), `--` before words that begin with a dash. Options and words may come in any order; all words stay strings.
 */
export function scanArguments(argv: readonly string[]): ScannedArguments {
  const options: GivenOption[] = [];
  const words: string[] = [];
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at]!;
    const next = argv[at + 1];
    if (argument === '--') return { options, words: [...words, ...argv.slice(at + 1)] };
    if (argument.startsWith('--')) {
      const option = longOption(argument, next);
      options.push(option);
      if (option.value !== undefined && option.value === next && !argument.includes('=')) at++;
    } else if (argument.startsWith('-') && argument.length > 1) {
      options.push(...shortOptions(argument, next));
    } else {
      words.push(argument);
    }
  }
  return { options, words };
}

function longOption(argument: string, next: string | undefined): GivenOption {
  const cut = argument.indexOf('=');
  const typed = cut < 0 ? argument : argument.slice(0, cut);
  const spec = BY_NAME.get(typed);
  if (cut >= 0) return { spec, typed, value: argument.slice(cut + 1), next };
  // `--store --json` lacks a directory, but `--workers -1` has a value, if a wrong one.
  const takesNext = spec?.placeholder !== undefined && next !== undefined && !/^-(?!\d)/.test(next);
  return { spec, typed, value: takesNext ? next : undefined, next };
}

function shortOptions(argument: string, next: string | undefined): GivenOption[] {
  const letters = [...argument.slice(1)].map((letter) => `-${letter}`);
  const known = letters.every((letter) => BY_NAME.has(letter));
  return known
    ? letters.map((typed) => ({ spec: BY_NAME.get(typed), typed, value: undefined, next }))
    : [{ spec: undefined, typed: argument, value: undefined, next }];
}
