import { PullError } from '../format/error.js';
import { formatPlatform, hostPlatform, type Platform, parsePlatform } from '../format/platform.js';
import { usableCores } from '../pool/cores.js';
import type { LayerFollower } from '../pool/layer-follower.js';
import type { TokenCache } from '../registry/token.js';
import type { PullEvent } from './pull-events.js';

/** Whether the registry is asked: always, only when the image is not in the store, or never. */
export type Policy = 'always' | 'missing' | 'never';

export interface PullOptions {
  /** Root directory of the store. */
  readonly store: string;
  /** `os/arch[/variant]`; default linux and this machine's architecture. */
  readonly platform?: string;
  readonly policy?: Policy;
  /** Fetching and decoding threads; default the cores this process may use, at most 16. */
  readonly workers?: number;
  /** Range requests in flight, all layers and workers together; default 16. */
  readonly connections?: number;
  /** Karma's time constant τ; default 1000. */
  readonly patienceMs?: number;
  /** How long a connection may take to stand, TLS included; default 5000. Each of these limits is one miss when it is exceeded. */
  readonly connectTimeoutMs?: number;
  /** How long an answer may be silent once its body has begun; default 10000. */
  readonly idleTimeoutMs?: number;
  /** How long a connection that stands may take to begin an answer; default 60000. */
  readonly answerTimeoutMs?: number;
  /** Fetches foreign layers from where their descriptors say, without credentials; default false. */
  readonly allowForeign?: boolean;
  /** Pulls although policy.json asks for a proof that is not checked, such as a signature; what it rejects is rejected all the same. */
  readonly insecurePolicy?: boolean;
  /** Bytes a second that all layers together receive at most; default no limit. */
  readonly limitRate?: number;
  readonly plainHttp?: boolean;
  /** Follows redirects of a registry with https to a storage without; default false. Digests prove the bytes. */
  readonly allowHttpStorage?: boolean;
  readonly tlsVerify?: boolean;
  /** Directory with the registry's certificates, instead of the usual ones: `*.crt`, `*.cert` with `*.key`. */
  readonly certDir?: string;
  /** For the registry of the image and none of its mirrors; left out, they are looked for where podman and docker keep them. */
  readonly credentials?: { readonly username: string; readonly password: string };
  /** The only file to look for credentials in. */
  readonly authfile?: string;
  /** Pulls that are given the same map share the tokens they are let in with; left out, this one shares them with none. */
  readonly tokens?: TokenCache;
  /** Emits a `debug` event for each request. */
  readonly debug?: boolean;
  /** Aborting ends the pull at once and leaves a store from which the next one goes on; the reason is thrown. */
  readonly signal?: AbortSignal;
  /** What uses layers while others still come, such as `RootfsFollower`. */
  readonly follower?: LayerFollower;
  readonly onEvent?: (event: PullEvent) => void;
}

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
