import type { Digest } from './digest.js';
import { PullError, quote } from './error.js';
import { JsonCursor } from './json-cursor.js';

/**
 * Go's reader fails at 10,000 levels. The deepest document of an image, a config with a health
 * check, has five. JSON.parse takes any depth, but JSON.stringify recurses and fails at some
 * thousands.
 */
const MAX_JSON_DEPTH = 100;

/**
 * Labels and annotations are some dozens. Half a million keys, which fit into 4 MiB, would take 200
 * MB of memory.
 */
const MAX_OBJECT_KEYS = 10_000;

/** Field names have some dozen letters at most. */
const MAX_SHOWN_KEY_LENGTH = 100;

/**
 * The keys that readers of a document know, each with its kind of value: an object (or a list of
 * objects) with known keys of its own, an integer, or null for anything else, such as a map with
 * free keys.
 */
export interface KnownKeys {
  readonly [name: string]: KnownKeys | 'integer' | null;
}

/** Returns known keys with any kind of value, separated by blanks in `names`. */
export function freeKeys(names: string): KnownKeys {
  return Object.fromEntries(names.split(' ').map((name) => [name, null]));
}

/** Known keys by folded name. */
interface Rules {
  readonly byFold: ReadonlyMap<string, { readonly name: string; readonly value: Rules | 'integer' | null }>;
}

/** Parses documents with these keys; `what` names the document in errors. */
export type StrictParser = (bytes: Uint8Array, what: string) => unknown;

/**
 * Returns a parser for JSON documents that every reader understands in the same way: RFC 8259 in
 * UTF-8, without a duplicate key in an object and without a key that equals a known key except for
 * case. Go's encoding/json, which most container tools use, takes such a key for the known one, and
 * the last of several. Fractions and exponents for integers, which JSON.parse rounds, are refused
 * too.
 *
 * The parser throws PullError `metadata-malformed`.
 */
export function strictParser(known: KnownKeys): StrictParser {
  const rules = rulesOf(known);
  return (bytes, what) => {
    const text = decode(bytes, what);
    checkDocument(new JsonCursor(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), what), rules);
    return JSON.parse(text);
  };
}

function rulesOf(known: KnownKeys): Rules {
  const byFold = Object.entries(known).map(([name, value]) => {
    const rules = value === null || value === 'integer' ? value : rulesOf(value);
    return [fold(name), { name, value: rules }] as const;
  });
  return { byFold: new Map(byFold) };
}

/**
 * Returns the name by which Go finds a field (encoding/json, foldName): simple case folding, where
 * the long s and the Kelvin sign are ASCII letters too.
 */
function fold(name: string): string {
  return name.toLowerCase().replaceAll('\u017f', 's');
}

/** A byte order mark is kept, and is not JSON: Go refuses it as well. */
function decode(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new PullError('metadata-malformed', `${what} is not UTF-8`, { cause });
  }
}

interface Level {
  readonly rules: Rules | 'integer' | null;
  /** The keys so far; undefined for a list. */
  readonly keys: Set<string> | undefined;
}

const OPEN_BRACE = 0x7b;
const OPEN_BRACKET = 0x5b;

/** Checks a document in one pass, with a stack of its own, whose depth is bounded. */
function checkDocument(cursor: JsonCursor, rules: Rules): void {
  const open: Level[] = [];
  let next: Level['rules'] = rules;
  for (;;) {
    const byte = cursor.peek();
    let more: boolean;
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      if (open.length === MAX_JSON_DEPTH) throw cursor.malformed(`at most ${MAX_JSON_DEPTH} nested values`);
      const opensObject = byte === OPEN_BRACE;
      open.push({ rules: next, keys: opensObject ? new Set() : undefined });
      more = opensObject ? cursor.firstMember() : cursor.firstElement();
    } else {
      checkScalar(cursor, next);
      more = hasNext(cursor, open.at(-1));
    }
    while (!more && open.length > 0) {
      open.pop();
      more = hasNext(cursor, open.at(-1));
    }
    const level = open.at(-1);
    if (level === undefined) break;
    next = level.keys === undefined ? level.rules : checkKey(cursor, level.rules, level.keys);
  }
  cursor.end();
}

function hasNext(cursor: JsonCursor, level: Level | undefined): boolean {
  if (level === undefined) return false;
  return level.keys === undefined ? cursor.nextElement() : cursor.nextMember();
}

/** Checks the key that the cursor has just read. Returns the rules for its value. */
function checkKey(cursor: JsonCursor, rules: Level['rules'], keys: Set<string>): Level['rules'] {
  // Go reads half a surrogate pair as U+FFFD, so that two such keys can be equal.
  const key = cursor.text().replaceAll(/\p{Surrogate}/gu, '\ufffd');
  if (keys.has(key)) throw malformedAt(cursor, `has the key ${quote(key, MAX_SHOWN_KEY_LENGTH)} twice`);
  if (keys.size === MAX_OBJECT_KEYS)
    throw malformedAt(cursor, `has an object of over ${MAX_OBJECT_KEYS} keys`);
  keys.add(key);
  if (rules === null || rules === 'integer') return null;
  const known = rules.byFold.get(fold(key));
  if (known === undefined) return null;
  if (known.name === key) return known.value;
  throw malformedAt(
    cursor,
    `has the key ${quote(key, MAX_SHOWN_KEY_LENGTH)}, which some programs take for ${quote(known.name, MAX_SHOWN_KEY_LENGTH)}`,
  );
}

function checkScalar(cursor: JsonCursor, rules: Level['rules']): void {
  const start = cursor.offset;
  cursor.skipValue();
  if (rules !== 'integer') return;
  const text = cursor.bytes.toString('latin1', start, cursor.offset);
  if (/^-?\d.*[.eE]/.test(text))
    throw malformedAt(cursor, `has ${quote(text, MAX_SHOWN_KEY_LENGTH)} where an integer must be`);
}

function malformedAt({ what, offset }: JsonCursor, problem: string): PullError {
  return new PullError('metadata-malformed', `${what} ${problem}, at byte ${offset}`);
}

/** A parsed JSON object. */
export type Fields = Readonly<Record<string, unknown>>;

/**
 * Returns the object in a document of at most `maxBytes` bytes; `what` names it in errors.
 * @throws PullError `metadata-malformed`
 */
export function parseObject(bytes: Uint8Array, maxBytes: number, what: string, parse: StrictParser): Fields {
  if (bytes.length > maxBytes) {
    throw malformed(`${what} is ${bytes.length} bytes long; at most ${maxBytes} are accepted`);
  }
  return asFields(parse(bytes, what), what);
}

/** Returns a field of a parsed object, never one that every object inherits. */
export function own(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

/** Whether a parsed value is an object, and neither null nor a list. */
export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns `value` as an object. @throws PullError `metadata-malformed` */
export function asFields(value: unknown, what: string): Fields {
  if (!isObject(value)) throw malformed(`${what} is not an object`);
  return value;
}

/** Returns `value` as a string. @throws PullError `metadata-malformed` */
export function asString(value: unknown, what: string): string {
  if (typeof value !== 'string') throw malformed(`${what} is not a string`);
  return value;
}

/**
 * Returns a string field; empty if it is absent or null, as Go reads it.
 * @throws PullError `metadata-malformed`
 */
export function textOf(fields: Fields, name: string, what: string): string {
  return asString(own(fields, name) ?? '', `${what}.${name}`);
}

/** Returns `value` as a list of at most `max` items. @throws PullError `metadata-malformed` */
export function parseList(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw malformed(`${what} is not a list`);
  if (value.length > max) throw malformed(`${what} has ${value.length} entries; at most ${max} are accepted`);
  return value;
}

/** Returns the error for a document that breaks the rules of its format. */
export function malformed(problem: string, layer?: Digest): PullError {
  return new PullError('metadata-malformed', problem, layer === undefined ? {} : { layer });
}
