import { resolve } from 'node:path';
import type { PullOptions } from '../api/pull.js';
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
    ...given('answerTimeoutMs', milliseconds(values['answer-timeout'])),
    ...given('allowForeign', values['allow-foreign']),
    ...given('insecurePolicy', values['insecure-policy']),
    ...given('limitRate', values['limit-rate']),
    ...given('plainHttp', values['plain-http']),
    ...given('allowHttpStorage', values['allow-http-storage']),
    ...given('tlsVerify', values['tls-verify']),
    ...given('certDir', values['cert-dir']),
    ...given('authfile', values.authfile === undefined ? undefined : resolve(values.authfile)),
    ...given('credentials', values.creds === undefined ? undefined : splitCreds(values.creds)),
    ...given('debug', values.debug),
  };
}

/** `USER[:PASS]`: a user name has no colon, a password may. Without one the password is empty, as for skopeo. */
function splitCreds(creds: string): NonNullable<PullOptions['credentials']> {
  const colon = creds.indexOf(':');
  return colon < 0
    ? { username: creds, password: '' }
    : { username: creds.slice(0, colon), password: creds.slice(colon + 1) };
}

function given<Name extends keyof PullOptions>(
  name: Name,
  value: PullOptions[Name] | undefined,
): Partial<Pick<PullOptions, Name>> {
  return value === undefined ? {} : ({ [name]: value } as Pick<PullOptions, Name>);
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.max(1, Math.round(seconds * 1000));
}
