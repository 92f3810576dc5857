import { UsageError } from './failure.js';
import type { NumberRule, OptionSpec } from './options.js';

/**
 * The value of an option from what yargs read: a list for flags and for options given more than
 * once.
 * @throws UsageError when it is given twice, empty or not a number that the option takes
 */
export function readValue(option: OptionSpec, read: unknown): string | number | boolean {
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

export function valueMissing({ name, placeholder }: OptionSpec): UsageError {
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
