import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { type ErrorCode, PullError } from '../../src/format/error.js';

/** An input that a target failed on, made as small as fast-check could. */
export interface Finding {
  readonly target: string;
  /** With the name of the target, this seed repeats the search that found it. */
  readonly seed: number;
  readonly input: string;
  readonly error: string;
}

interface Search {
  readonly seed: number;
  readonly runs: number;
  /** Ends the search early, without a finding; undefined: never. */
  readonly limitMs?: number;
  /** Is called before each run. */
  readonly onRun: () => void;
}

/** One parser with the inputs that are tried on it. */
export interface Target {
  readonly name: string;
  /** Tries inputs; the first that breaks a promise of the parser, or undefined. The same seed tries the same inputs. */
  search(search: Search): Promise<Finding | undefined>;
  /** The inputs that `search` tries with this seed, without trying them, up to number `last` (from 1). */
  input(seed: number, last: number): Promise<string>;
}

/** A target of this name: `check` throws for an input of `inputs` that is handled wrongly. */
export function target<Input>(
  name: string,
  inputs: fc.Arbitrary<Input>,
  check: (input: Input) => void | Promise<void>,
): Target {
  return {
    name,
    async search({ seed, runs, limitMs, onRun }) {
      const property = fc.asyncProperty(inputs, async (input) => {
        onRun();
        await check(input);
      });
      const limit = limitMs === undefined ? {} : { interruptAfterTimeLimit: limitMs };
      const found = await fc.check(property, { seed, numRuns: runs, ...limit });
      if (!found.failed || found.counterexample === null) return undefined;
      const error = found.errorInstance;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return { target: name, seed, input: show(found.counterexample[0]), error: text };
    },
    async input(seed, last) {
      let shown = '';
      let run = 0;
      const property = fc.asyncProperty(inputs, async (input) => {
        run += 1;
        if (run === last) shown = show(input);
      });
      await fc.check(property, { seed, numRuns: last });
      return shown;
    },
  };
}

/** What is longer fills a screen. */
const MAX_SHOWN_LENGTH = 4000;

/** Bytes as hex, all else as source text; what is long as the base64 of its gzip. */
function show(input: unknown): string {
  const text =
    input instanceof Uint8Array ? `hex ${Buffer.from(input).toString('hex')}` : fc.stringify(input);
  if (text.length <= MAX_SHOWN_LENGTH) return text;
  const bytes = input instanceof Uint8Array ? input : text;
  return `base64 of gzip ${gzipSync(bytes).toString('base64')}`;
}

/**
 * What `parse` returns, or undefined when it refuses the input with a PullError of one of these codes. All other errors
 * go through: they are what is looked for.
 */
export function tolerate<T>(parse: () => T, ...codes: readonly ErrorCode[]): T | undefined {
  try {
    return parse();
  } catch (error) {
    checkRefusal(error, codes);
    return undefined;
  }
}

/** As `tolerate`, for what is asynchronous. */
export async function tolerateAsync<T>(
  parse: () => Promise<T>,
  ...codes: readonly ErrorCode[]
): Promise<T | undefined> {
  try {
    return await parse();
  } catch (error) {
    checkRefusal(error, codes);
    return undefined;
  }
}

function checkRefusal(error: unknown, codes: readonly ErrorCode[]): void {
  if (!(error instanceof PullError)) throw error;
  assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
  assert.ok(error.hint, `no hint: ${error.message}`);
}
