import { resolve } from 'node:path';
import type { PullOptions } from '../index.js';
import { defaultStore } from './default-store.js';
import type { OptionValues } from './options.js';

/** The absolute path of the store that a command works on. */
export function storeOf(values: OptionValues, env: NodeJS.ProcessEnv): string {
  return values.store === undefined ? defaultStore(env) : resolve(values.store);
}

/** The options of a pull, as the command line and the environment state them; seconds become milliseconds. */
export function pullOptionsOf(values: OptionValues, env: NodeJS.ProcessEnv): PullOptions {
  const platform = values.platform ?? env['DOCKER_DEFAULT_PLATFORM'];
  return {
    store: storeOf(values, env),
    ...(platform !== undefined && platform !== '' && { platform }),
    ...given('policy', values.policy),
    ...given('workers', values.workers),
    ...given('connections', values.connections),
    ...given('patienceMs', milliseconds(values.patience)),
    ...given('connectTimeoutMs', milliseconds(values['connect-timeout'])),
    ...given('idleTimeoutMs', milliseconds(values['idle-timeout'])),
    ...given('limitRate', values['limit-rate']),
    ...given('plainHttp', values['plain-http']),
    ...given('tlsVerify', values['tls-verify']),
    ...given('certDir', values['cert-dir']),
    ...given('debug', values.debug),
  };
}

function given<Name extends keyof PullOptions>(
  name: Name,
  value: PullOptions[Name] | undefined,
): Pick<PullOptions, Name> | Record<string, never> {
  return value === undefined ? {} : ({ [name]: value } as Pick<PullOptions, Name>);
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.max(1, Math.round(seconds * 1000));
}
