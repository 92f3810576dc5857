import { PullError, quote } from '../format/error.js';
import { formatPlatform, hostPlatform, type Platform, parsePlatform } from '../format/platform.js';
import { isObject } from '../format/strict-json.js';
import { usableCores } from '../pool/cores.js';
import type { LayerFollower } from '../pool/messages.js';
import type { StageRecorder } from '../pool/stages.js';
import type { EventOrigin, PullEvent } from './pull-events.js';
import type { Shared } from './shared.js';

/**
 * When to send requests to the registry: always, only if the image is missing in the store, or
 * never.
 */
export type Policy = 'always' | 'missing' | 'never';

const POLICIES: readonly Policy[] = ['always', 'missing', 'never'];

/** Options of a pull. */
export interface PullOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** `os/arch[/variant]`; default linux and this machine's architecture. */
  readonly platform?: string;
  /** Default `always`. */
  readonly policy?: Policy;
  /** Fetching and decoding threads; default the cores available to this process, at most 16. */
  readonly workers?: number;
  /** Range requests in flight, all layers and workers together; default 16. */
  readonly connections?: number;
  /**
   * How long received bytes count against network failures, in milliseconds: the more, the longer a
   * pull goes on without progress; default 1000.
   */
  readonly patienceMs?: number;
  /**
   * Time to connect, including TLS, in milliseconds; default 5000. Exceeding any of these timeouts is one network
   * failure.
   */
  readonly connectTimeoutMs?: number;
  /** Milliseconds without data after the body of an answer has begun; default 10000. */
  readonly idleTimeoutMs?: number;
  /** Milliseconds until the first byte of an answer; default 60000. */
  readonly answerTimeoutMs?: number;
  /**
   * Fetch foreign layers from the URLs in their descriptors, without credentials; default false.
   */
  readonly allowForeign?: boolean;
  /**
   * Pull although policy.json requires a check that is not supported, such as a signature. Rejected
   * images stay rejected.
   */
  readonly insecurePolicy?: boolean;
  /** Maximum bytes a second of all layers together; default no limit. */
  readonly limitRate?: number;
  /** Use http instead of https; default false. Loopback hosts are tried with http first anyway. */
  readonly plainHttp?: boolean;
  /**
   * Follow redirects of an https registry to an http storage; default false. Digests verify the
   * bytes.
   */
  readonly allowHttpStorage?: boolean;
  /** Check certificates; default true. */
  readonly tlsVerify?: boolean;
  /**
   * Directory with the registry's certificates, instead of the default ones: `*.crt`, `*.cert` with
   * `*.key`.
   */
  readonly certDir?: string;
  /** For the registry of the image, not for its mirrors; default those of podman and docker. */
  readonly credentials?: { readonly username: string; readonly password: string };
  /** The only file to read credentials from. */
  readonly authfile?: string;
  /** Emit a `debug` event for each request. */
  readonly debug?: boolean;
  /**
   * Aborting ends the pull at once; the next pull resumes from the store. The error is the reason of
   * the abort if that is a PullError, otherwise `interrupted` with the reason as its `cause`.
   */
  readonly signal?: AbortSignal;
  /** Called with each event. What it throws ends the pull and is thrown. */
  readonly onEvent?: (event: PullEvent & EventOrigin) => void;
}

/** The options of a pull that belongs to a command or a client. */
export interface RunOptions extends PullOptions {
  /** What it shares with other pulls; default nothing. */
  readonly shared?: Shared;
  /** Uses layers while others still arrive, such as `RootfsFollower`. */
  readonly follower?: LayerFollower;
  /**
   * Records the stages of several calls together, one after the other; default one of its own.
   */
  readonly stages?: StageRecorder;
}

/** More threads helped with no measured image, and each costs 20 to 35 MB. */
const MAX_DEFAULT_WORKERS = 16;
/** 16 requests fill a link of 50 ms and 20 MB/s a connection up to 2.5 Gbit/s. */
export const DEFAULT_CONNECTIONS = 16;

/**
 * A cache that fetches an image it does not have takes 5 to 200 s for its first byte; most take
 * less than a minute.
 */
const DEFAULT_ANSWER_TIMEOUT_MS = 60_000;

/** About the cores of the largest machines; each thread costs 20 to 35 MB to start. */
export const MAX_WORKERS = 512;
/** More look like an attack to a registry, and the usual limit of 1024 open files is near. */
export const MAX_CONNECTIONS = 1000;
/** A day; timers are limited to 24.8 days. */
export const MAX_TIMEOUT_MS = 86_400_000;

type NoDefault = 'limitRate' | 'certDir' | 'credentials' | 'authfile';
type NoSetting = 'platform' | 'signal' | 'onEvent';

/** Returns the worker threads of a pull without options, on so many cores. */
export function defaultWorkersOf(cores: number): number {
  return Math.min(cores, MAX_DEFAULT_WORKERS);
}

/** The options of a pull with all defaults. */
export type Settings = Required<Omit<PullOptions, NoDefault | NoSetting>> & {
  readonly [name in NoDefault]: PullOptions[name];
} & { readonly platform: Platform; readonly platformName: string };

/**
 * Checks options and fills in defaults.
 * @throws PullError `option-malformed` naming the option that is out of bounds
 */
export function resolveOptions(options: PullOptions): Settings {
  checkTypes(options);
  const platform =
    options.platform === undefined ? hostPlatform(process.arch) : parsePlatform(options.platform);
  const timeout = (name: `${string}Ms` & keyof PullOptions, byDefault: number) =>
    within(name, options[name] ?? byDefault, MAX_TIMEOUT_MS);
  return {
    store: options.store,
    platform,
    platformName: formatPlatform(platform),
    policy: options.policy ?? 'always',
    workers: whole('workers', options.workers ?? defaultWorkersOf(usableCores()), MAX_WORKERS),
    connections: whole('connections', options.connections ?? DEFAULT_CONNECTIONS, MAX_CONNECTIONS),
    patienceMs: timeout('patienceMs', 1000),
    connectTimeoutMs: timeout('connectTimeoutMs', 5000),
    idleTimeoutMs: timeout('idleTimeoutMs', 10_000),
    answerTimeoutMs: timeout('answerTimeoutMs', DEFAULT_ANSWER_TIMEOUT_MS),
    allowForeign: options.allowForeign ?? false,
    insecurePolicy: options.insecurePolicy ?? false,
    limitRate:
      options.limitRate === undefined
        ? undefined
        : within('limitRate', options.limitRate, Number.MAX_SAFE_INTEGER),
    plainHttp: options.plainHttp ?? false,
    allowHttpStorage: options.allowHttpStorage ?? false,
    tlsVerify: options.tlsVerify ?? true,
    certDir: options.certDir,
    credentials: checkCredentials(options.credentials),
    authfile: options.authfile,
    debug: options.debug ?? false,
  };
}

type Check = readonly [expected: string, accepts: (value: unknown) => boolean];

const BOOLEAN: Check = ['true or false', (value) => typeof value === 'boolean'];
const TEXT: Check = [
  'a string with at least one character',
  (value) => typeof value === 'string' && value !== '',
];
const FUNCTION: Check = ['a function', (value) => typeof value === 'function'];

/** Options whose type is checked; numbers and the store are checked where they are used. */
const CHECKS: Partial<Record<keyof PullOptions, Check>> = {
  platform: TEXT,
  policy: [`one of ${POLICIES.join(', ')}`, (value) => POLICIES.some((policy) => policy === value)],
  allowForeign: BOOLEAN,
  insecurePolicy: BOOLEAN,
  plainHttp: BOOLEAN,
  allowHttpStorage: BOOLEAN,
  tlsVerify: BOOLEAN,
  certDir: TEXT,
  credentials: ['an object with username and password', isCredentials],
  authfile: TEXT,
  debug: BOOLEAN,
  signal: ['an AbortSignal', (value) => value instanceof AbortSignal],
  onEvent: FUNCTION,
};

function isCredentials(value: unknown): boolean {
  const { username, password } = isObject(value) ? value : {};
  return typeof username === 'string' && typeof password === 'string';
}

/**
 * Checks what a caller without types may get wrong.
 * @throws PullError `option-malformed`
 */
function checkTypes(options: unknown): void {
  if (!isObject(options)) throw new PullError('option-malformed', 'the options must be an object');
  for (const [name, [expected, accepts]] of Object.entries(CHECKS)) {
    const value = options[name];
    if (value === undefined || accepts(value)) continue;
    const isSecret = name === 'credentials';
    const shown = isSecret || typeof value === 'object' ? '' : `, not ${quote(String(value))}`;
    throw new PullError('option-malformed', `${name} must be ${expected}${shown}`);
  }
}

/** Basic authentication cannot express a user name with a colon. */
function checkCredentials(given: PullOptions['credentials']): PullOptions['credentials'] {
  if (given === undefined || /^[^:]+$/.test(given.username)) return given;
  throw new PullError('option-malformed', 'a user name must not be empty or have a colon in it', {
    hint: 'write --creds USER:PASS',
  });
}

function whole(name: string, value: number, most: number): number {
  if (Number.isInteger(value)) return within(name, value, most);
  throw new PullError('option-malformed', `${name} must be a whole number, not ${quote(String(value))}`);
}

function within(name: string, value: number, most: number): number {
  if (Number.isFinite(value) && value >= 1 && value <= most) return value;
  throw new PullError(
    'option-malformed',
    `${name} must be a number from 1 to ${most}, not ${quote(String(value))}`,
  );
}
