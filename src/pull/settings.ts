import { PullError } from '../format/error.js';
import { formatPlatform, hostPlatform, type Platform, parsePlatform } from '../format/platform.js';
import { usableCores } from '../pool/cores.js';
import type { Policy, PullOptions } from './options.js';

/** More threads than this help no image that was measured, and each costs 20 to 35 MB. */
const MOST_DEFAULT_WORKERS = 16;
/** 16 requests fill a link of 50 ms and 20 MB/s a connection up to 2.5 Gbit/s. */
const DEFAULT_CONNECTIONS = 16;

/** A cache that fetches an image it does not have takes 5 to 200 s for its first byte; most take less than a minute. */
const DEFAULT_ANSWER_TIMEOUT_MS = 60_000;

/** The largest machines have about as many cores; each thread costs 20 to 35 MB before it does anything. */
export const MOST_WORKERS = 512;
/** Beyond this a registry sees an attack, and the usual limit of 1024 open files is near. */
export const MOST_CONNECTIONS = 1000;
/** A day: no timer can wait longer than 24.8 of them, and nobody means to. */
export const MOST_MS = 86_400_000;

/** The options of a pull, every default filled in. */
export interface Settings {
  readonly store: string;
  readonly platform: Platform;
  readonly platformName: string;
  readonly policy: Policy;
  readonly workers: number;
  readonly connections: number;
  readonly patienceMs: number;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly answerTimeoutMs: number;
  readonly allowForeign: boolean;
  readonly insecurePolicy: boolean;
  readonly limitRate: number | undefined;
  readonly plainHttp: boolean;
  readonly allowHttpStorage: boolean;
  readonly tlsVerify: boolean;
  readonly certDir: string | undefined;
  readonly credentials: PullOptions['credentials'];
  readonly authfile: string | undefined;
  readonly debug: boolean;
}

/**
 * The settings that these options mean.
 * @throws PullError `option-malformed` naming the option that is out of bounds
 */
export function resolveOptions(options: PullOptions): Settings {
  const platform =
    options.platform === undefined ? hostPlatform(process.arch) : parsePlatform(options.platform);
  return {
    store: options.store,
    platform,
    platformName: formatPlatform(platform),
    policy: options.policy ?? 'always',
    workers: whole('workers', options.workers ?? Math.min(usableCores(), MOST_DEFAULT_WORKERS), MOST_WORKERS),
    connections: whole('connections', options.connections ?? DEFAULT_CONNECTIONS, MOST_CONNECTIONS),
    patienceMs: within('patienceMs', options.patienceMs ?? 1000, MOST_MS),
    connectTimeoutMs: within('connectTimeoutMs', options.connectTimeoutMs ?? 5000, MOST_MS),
    idleTimeoutMs: within('idleTimeoutMs', options.idleTimeoutMs ?? 10_000, MOST_MS),
    answerTimeoutMs: within('answerTimeoutMs', options.answerTimeoutMs ?? DEFAULT_ANSWER_TIMEOUT_MS, MOST_MS),
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

/** Basic authentication has no way to say a user name with a colon, nor what none would mean. */
function checkCredentials(given: PullOptions['credentials']): PullOptions['credentials'] {
  if (given === undefined || /^[^:]+$/.test(given.username)) return given;
  throw new PullError('option-malformed', 'a user name must not be empty or have a colon in it', {
    hint: 'write --creds USER:PASS',
  });
}

function whole(name: string, value: number, most: number): number {
  if (Number.isInteger(value)) return within(name, value, most);
  throw new PullError('option-malformed', `${name} must be a whole number, not ${value}`);
}

function within(name: string, value: number, most: number): number {
  if (Number.isFinite(value) && value >= 1 && value <= most) return value;
  throw new PullError('option-malformed', `${name} must be a number from 1 to ${most}, not ${value}`);
}
