/**
 * All error codes: the exit code of each (see the table in the README), what it means, and the hint
 * for errors without one of their own. The list is closed; docs/errors.md is made of it.
 */
const ERRORS = {
  internal: {
    exit: 1,
    means: 'an error that no other code covers, most likely a bug in zpull',
    hint: 'this is a mistake in zpull: run it again with --debug and report what it shows',
  },
  'option-malformed': {
    exit: 2,
    means:
      'an option, an argument or a file on the command line, a credentials file or a configuration file is not valid; nothing was done',
    hint: 'correct the value that is named; zpull COMMAND --help lists what each option takes',
  },
  'reference-malformed': {
    exit: 2,
    means: 'the name of the image is not valid',
    hint: 'write it as host/repository:tag, host/repository@sha256:… or a short name like alpine',
  },
  'image-not-found': {
    exit: 3,
    means:
      'the registry does not have the repository or the tag, or the store does not have the image and --policy never forbids a request',
    hint: 'check the repository and the tag for typing errors; some registries answer this for private images too',
  },
  'platform-not-found': {
    exit: 3,
    means: 'the image exists, but not for this platform',
    hint: 'choose another platform with --platform; zpull inspect IMAGE lists them',
  },
  'path-not-found': {
    exit: 3,
    means: 'the image has nothing at the path of --path',
    hint: 'check the path; zpull export IMAGE tar:FILE writes all that the image has',
  },
  'blob-not-found': {
    exit: 3,
    means: 'the manifest names a layer or a config that the registry does not have',
    hint: 'the image is incomplete in the registry: push it again, or pull another version',
  },
  unauthorized: {
    exit: 4,
    means:
      'the registry requires credentials, or does not accept those it got, or a credential helper failed',
    hint: 'log in with docker login or podman login, or check the rights of the account',
  },
  'registry-blocked': {
    exit: 4,
    means: 'registries.conf blocks this registry',
    hint: 'choose another registry, or change the file that forbids this one',
  },
  'policy-rejected': {
    exit: 4,
    means: 'policy.json rejects the image',
    hint: 'choose an image that the policy accepts, or change the file that is named',
  },
  'network-hopeless': {
    exit: 5,
    means: 'the network failed too often for what it delivered, or a server asks to wait too long',
    hint: 'check the name, the network and the registry, then run the same command again: it continues where this one ended',
  },
  'redirect-refused': {
    exit: 5,
    means: 'too many redirects, or one from https to http',
    hint: 'the registry or a proxy in front of it is misconfigured: tell its operator, or pull from another registry',
  },
  'answer-unexpected': {
    exit: 5,
    means:
      'a response that is not one of a registry: not HTTP, a web page, a wrong length, an unexpected status',
    hint: 'check the address and the proxies on the way to it; --debug shows every request',
  },
  'digest-mismatch': {
    exit: 6,
    means: 'a download is complete, but does not match its digest',
    hint: 'pull again; if the error stays, the registry or a proxy in front of it changes bytes: pull from another registry',
  },
  'metadata-malformed': {
    exit: 6,
    means: "a manifest, a config or a layer's metadata violates its format, or is hostile",
    hint: 'the image breaks the rules of its format: report it to the publisher, or pull another version',
  },
  'store-full': {
    exit: 7,
    means: 'no space left for the store, or for the destination of an export',
    hint: 'free some space, or choose another place with --store; what was received is kept',
  },
  'store-denied': {
    exit: 7,
    means:
      'no permission to read or write the store, or the destination of an export; or every user may write to the store',
    hint: 'check the owner and the permissions of the directory, or choose another one with --store',
  },
  'store-broken': {
    exit: 7,
    means: 'files of the store, or of an export in progress, are corrupt',
    hint: 'pull again, or choose another store with --store; zpull store verify lists what is damaged',
  },
  unsupported: {
    exit: 8,
    means:
      'something that zpull does not support, such as old manifests, digests other than sha256, encrypted layers',
    hint: 'pull another version of the image, or use a tool that supports this one, such as skopeo',
  },
  interrupted: {
    exit: 130,
    means: 'stopped by SIGINT (Ctrl-C)',
    hint: 'run the same command again: it continues where this one stopped',
  },
  terminated: {
    exit: 143,
    means: 'stopped by SIGTERM',
    hint: 'run the same command again: it continues where this one stopped',
  },
} as const;

/** The code of an error: `docs/errors.md` explains each. */
export type ErrorCode = keyof typeof ERRORS;

/** What the documentation says about a code. */
export function describeCode(code: ErrorCode): (typeof ERRORS)[ErrorCode] {
  return ERRORS[code];
}

/** All codes of errors. */
export const ERROR_CODES = Object.keys(ERRORS) as readonly ErrorCode[];

/** An error as sent between threads: an Error would lose its class and its fields. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  /** What the user can do about it. */
  readonly hint: string;
  /** The layer concerned: the digest of its blob, or its DiffID for errors about the store. */
  readonly layer?: string;
  /** The image concerned, by its full name, or as it was given where that is no name. */
  readonly image?: string;
  /** Stack of the first error, shown with --debug only. */
  readonly stack?: string;
}

/**
 * A message has little more than a path of up to 4,096 bytes. Text of others in it may have any
 * length.
 */
const MAX_TEXT_LENGTH = 5000;

/**
 * The only error class: a sentence that says what failed, and a hint that says what to do (by
 * default that of the code).
 */
export class PullError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  readonly layer: string | undefined;
  /** See `Failure`. Set by the call that the image was given to. */
  image: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    more: {
      hint?: string | undefined;
      layer?: string | undefined;
      image?: string | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(shorten(message, MAX_TEXT_LENGTH), more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'PullError';
    this.code = code;
    this.hint = shorten(more.hint ?? ERRORS[code].hint, MAX_TEXT_LENGTH);
    this.layer = more.layer;
    this.image = more.image;
  }

  /** The process exit code for this error. */
  get exitCode(): number {
    return ERRORS[this.code].exit;
  }
}

/**
 * Converts any thrown value to a record that can be sent between threads. Anything but a PullError
 * becomes `internal`.
 */
export function toFailure(error: unknown): Failure {
  const { code, message, hint, layer, image } =
    error instanceof PullError
      ? error
      : new PullError('internal', error instanceof Error ? error.message : String(error));
  const stack = error instanceof Error ? error.stack : undefined;
  return {
    code,
    message,
    hint,
    ...(layer === undefined ? {} : { layer }),
    ...(image === undefined ? {} : { image }),
    ...(stack === undefined ? {} : { stack }),
  };
}

/** Converts a record back to an error. */
export function fromFailure({ code, message, hint, layer, image, stack }: Failure): PullError {
  const error = new PullError(code, message, { hint, layer, image });
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** Returns the error with another hint; anything but a PullError unchanged. */
export function withHint(error: unknown, hint: string): unknown {
  if (!(error instanceof PullError)) return error;
  const { code, message, layer, image } = error;
  return new PullError(code, message, { hint, layer, image, cause: error });
}

/** Returns the error, which names the image from now on unless it names one already. */
export function ofImage(error: unknown, image: string): unknown {
  if (error instanceof PullError) error.image ??= image;
  return error;
}

/** Returns the error with its layer named. */
export function inLayer(error: unknown, layer: string): PullError {
  return fromFailure({ layer, ...toFailure(error) });
}

/** Returns the text, cut to `maxLength` characters with the number of those left out. */
export function shorten(text: string, maxLength: number): string {
  const restLength = text.length - maxLength;
  return restLength <= 0
    ? text
    : `${text.slice(0, maxLength)}… (${formatNumber(restLength)} characters more)`;
}

/** Most characters of a list in a message: some dozen platforms, two or three long host names. */
const MAX_LIST_LENGTH = 600;

/**
 * Returns the items separated by commas, as many as fit a message and at least one: `a, b and 4,083
 * more`.
 */
export function listSome(items: readonly string[]): string {
  let length = 0;
  let shown = 0;
  for (const item of items) {
    length += item.length + 2;
    if (shown > 0 && length > MAX_LIST_LENGTH) break;
    shown += 1;
  }
  const list = items.slice(0, shown).join(', ');
  return shown === items.length ? list : `${list} and ${formatNumber(items.length - shown)} more`;
}

function formatNumber(value: number): string {
  return value.toLocaleString('en-US');
}

/**
 * Returns foreign text in quotes, cut to `maxLength` characters; control characters are escaped as
 * in JSON.
 */
export function quote(text: string, maxLength = 200): string {
  return JSON.stringify(shorten(text, maxLength));
}

/** Most characters of a file name in a message: half a line or more. */
const MAX_NAME_LENGTH = 300;

/** Returns a file name of a tar in quotes. Names are bytes: what is not UTF-8 becomes U+FFFD. */
export function quoteBytes(name: Buffer): string {
  return quote(name.toString(), MAX_NAME_LENGTH);
}

/**
 * Wraps a callback of the library's user so that it never throws. The first error that it throws,
 * or that its promise rejects with, goes to `failed`; after that it is not called again.
 */
export function guardListener<E>(
  listener: ((event: E) => unknown) | undefined,
  failed: (error: Error) => void,
): (event: E) => void {
  let isBroken = listener === undefined;
  const fail = (thrown: unknown) => {
    if (isBroken) return;
    isBroken = true;
    failed(
      thrown instanceof Error ? thrown : new Error(`a callback threw ${String(thrown)}`, { cause: thrown }),
    );
  };
  return (event) => {
    if (isBroken) return;
    try {
      const returned = listener?.(event);
      if (returned instanceof Object && 'then' in returned) Promise.resolve(returned).catch(fail);
    } catch (thrown) {
      fail(thrown);
    }
  };
}
