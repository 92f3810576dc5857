/**
 * Every error a user can meet. The list is closed; docs/errors.md repeats it and a test compares the two.
 * Each code has one exit code (see the table of exit codes in the README).
 */
const EXIT_CODES = {
  internal: 1,
  'option-malformed': 2,
  'reference-malformed': 2,
  'image-not-found': 3,
  'platform-not-found': 3,
  'blob-not-found': 3,
  unauthorized: 4,
  'registry-blocked': 4,
  'network-hopeless': 5,
  'redirect-refused': 5,
  'answer-unexpected': 5,
  'digest-mismatch': 6,
  'metadata-malformed': 6,
  'store-full': 7,
  'store-denied': 7,
  'store-broken': 7,
  unsupported: 8,
  interrupted: 130,
  terminated: 143,
} as const;

export type ErrorCode = keyof typeof EXIT_CODES;

export const ERROR_CODES = Object.keys(EXIT_CODES) as readonly ErrorCode[];

/** What travels between threads: an Error loses its class and its fields on the way, a record does not. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  /** Digest of the layer blob concerned. */
  readonly layer?: string;
  /** Stack of the first error, shown with --debug only. */
  readonly stack?: string;
}

/** The one error class: one sentence that names what failed, a hint that says what to do. */
export class PullError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly layer: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    more: { hint?: string; layer?: string; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'PullError';
    this.code = code;
    this.hint = more.hint;
    this.layer = more.layer;
  }

  /** The process exit code that belongs to this error. */
  get exitCode(): number {
    return EXIT_CODES[this.code];
  }
}

/** Any thrown value as a record that survives a thread boundary. What is no PullError becomes `internal`. */
export function toFailure(error: unknown): Failure {
  const stack = error instanceof Error ? error.stack : undefined;
  if (error instanceof PullError) {
    return {
      code: error.code,
      message: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.layer === undefined ? {} : { layer: error.layer }),
      ...(stack === undefined ? {} : { stack }),
    };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'internal', message, ...(stack === undefined ? {} : { stack }) };
}

/** The error a record stands for, on this side of the boundary. */
export function fromFailure(failure: Failure): PullError {
  const { hint, layer } = failure;
  const error = new PullError(failure.code, failure.message, {
    ...(hint === undefined ? {} : { hint }),
    ...(layer === undefined ? {} : { layer }),
  });
  if (failure.stack !== undefined) error.stack = failure.stack;
  return error;
}

/** The same error with the layer it belongs to named. */
export function inLayer(error: unknown, layer: string): PullError {
  return fromFailure({ layer, ...toFailure(error) });
}
