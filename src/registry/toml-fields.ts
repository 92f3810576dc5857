import { PullError } from '../format/error.js';

/** A table of a file, read field by field: each must have the type that is asked for. */
export class Fields {
  readonly path: string;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(value: unknown, path: string) {
    if (!isTable(value)) throw malformed(path, 'has a value where a table belongs');
    this.path = path;
    this.#values = value;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#values, name);
  }

  text(name: string): string | undefined {
    return this.#typed(name, 'a string', (value) => typeof value === 'string');
  }

  flag(name: string): boolean {
    return this.#typed<boolean>(name, 'true or false', (value) => typeof value === 'boolean') ?? false;
  }

  strings(name: string): readonly string[] | undefined {
    return this.#typed<string[]>(
      name,
      'a list of strings',
      (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
    );
  }

  table(name: string): Fields {
    return new Fields(this.#typed(name, 'a table', isTable) ?? {}, this.path);
  }

  tables(name: string): Fields[] {
    const list = this.#typed<unknown[]>(name, 'a list of tables', Array.isArray) ?? [];
    return list.map((item) => new Fields(item, this.path));
  }

  /** All fields, which must be strings. */
  texts(): Array<[string, string]> {
    return Object.keys(this.#values).map((name) => [name, this.text(name)!]);
  }

  #typed<T>(name: string, form: string, test: (value: unknown) => boolean): T | undefined {
    const value = this.has(name) ? this.#values[name] : undefined;
    if (value === undefined) return undefined;
    if (!test(value)) throw malformed(this.path, `has a ${JSON.stringify(name)} that is not ${form}`);
    return value as T;
  }
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The error for a file of the configuration that is not what it must be. */
export function malformed(path: string, problem: string, hint?: string): PullError {
  return new PullError('option-malformed', `${path} ${problem}`, {
    hint: hint ?? 'see containers-registries.conf(5) for its form',
  });
}
