import { PullError } from '../format/error.js';
import { formatPlatform, hostPlatform, type Platform, parsePlatform } from '../format/platform.js';
import { usableCores } from '../pool/cores.js';
import type { Policy, PullOptions } from './options.js';

/** More threads than this help no image that was measured, and each costs 20 to 35 MB. */
const MOST_DEFAULT_WORKERS = 16;
/** 16 requests fill a link of 50 ms and 20 MB/s a connection up to 2.5 Gbit/s. */
const DEFAULT_CONNECTIONS = 16;

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
  readonly plainHttp: boolean;
  readonly tlsVerify: boolean;
  readonly debug: boolean;
}

/**
 * The settings that these options mean.
 * @throws PullError `option-malformed` naming the option that is out of bounds
 */
export function settle(options: PullOptions): Settings {
  const platform =
    options.platform === undefined ? hostPlatform(process.arch) : parsePlatform(options.platform);
  return {
    store: options.store,
    platform,
    platformName: formatPlatform(platform),
    policy: options.policy ?? 'always',
    workers: within('workers', options.workers ?? Math.min(usableCores(), MOST_DEFAULT_WORKERS), 1, 256),
    connections: within('connections', options.connections ?? DEFAULT_CONNECTIONS, 1, 1024),
    patienceMs: within('patienceMs', options.patienceMs ?? 1000, 1, 3_600_000),
    connectTimeoutMs: within('connectTimeoutMs', options.connectTimeoutMs ?? 5000, 1, 3_600_000),
    idleTimeoutMs: within('idleTimeoutMs', options.idleTimeoutMs ?? 10_000, 1, 3_600_000),
    plainHttp: options.plainHttp ?? false,
    tlsVerify: options.tlsVerify ?? true,
    debug: options.debug ?? false,
  };
}

function within(name: string, value: number, least: number, most: number): number {
  if (Number.isFinite(value) && value >= least && value <= most) return value;
  throw new PullError('option-malformed', `${name} must be a number from ${least} to ${most}, not ${value}`);
}
