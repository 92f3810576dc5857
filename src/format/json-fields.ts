import type { Digest } from './digest.js';
import { PullError } from './error.js';
import type { StrictParser } from './strict-json.js';
import { shorten } from './text.js';

/** A parsed JSON object. */
export type Fields = Readonly<Record<string, unknown>>;

/**
 * The object that a document of at most `maxBytes` bytes is; `what` names it in errors.
 * @throws PullError `metadata-malformed`
 */
export function parseObject(bytes: Uint8Array, maxBytes: number, what: string, parse: StrictParser): Fields {
  if (bytes.length > maxBytes) {
    throw malformed(`${what} is ${bytes.length} bytes long; at most ${maxBytes} are accepted`);
  }
  return asFields(parse(bytes, what), what);
}

/** A field of a parsed document, never one that every object inherits. */
export function own(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

/** `value` as an object. @throws PullError `metadata-malformed` */
export function asFields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed(`${what} is not an object`);
  }
  return value as Fields;
}

/** `value` as a string. @throws PullError `metadata-malformed` */
export function asString(value: unknown, what: string): string {
  if (typeof value !== 'string') throw malformed(`${what} is not a string`);
  return value;
}

/** The string of a field; empty when the field is absent or null, as Go reads it. @throws PullError `metadata-malformed` */
export function textOf(fields: Fields, name: string, what: string): string {
  return asString(own(fields, name) ?? '', `${what}.${name}`);
}

/** `value` as a list of at most `max` items. @throws PullError `metadata-malformed` */
export function parseList(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw malformed(`${what} is not a list`);
  if (value.length > max) throw malformed(`${what} has ${value.length} entries; at most ${max} are accepted`);
  return value;
}

/** Foreign text as a message shows it. */
export function quote(text: string): string {
  return JSON.stringify(shorten(text, 200));
}

/** The error for a document that breaks the rules of its format. */
export function malformed(problem: string, layer?: Digest): PullError {
  return new PullError('metadata-malformed', problem, layer === undefined ? {} : { layer });
}
