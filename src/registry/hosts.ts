import { PullError } from '../format/error.js';

/** The name in references is not the name of the API (Docker's own convention). */
const DOCKER_API_HOST = 'registry-1.docker.io';

/** The `host[:port]` that serves the API of the registry a reference calls `host`. */
export function apiHost(host: string): string {
  return host === 'docker.io' || host === 'index.docker.io' ? DOCKER_API_HOST : host;
}

/** DNS names have at most 253 characters, and a port six more. */
const MAX_HOST_LENGTH = 259;

/** Whether a URL that someone else wrote names a host that can exist: messages repeat it. */
export function isUsableHost({ host }: URL): boolean {
  return host.length <= MAX_HOST_LENGTH;
}

/** Whether a URL's host name is this machine: `localhost`, 127.0.0.0/8 or `[::1]` (a URL writes them in one way). */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/**
 * The origin of `host[:port]` as a URL.
 * @throws PullError `reference-malformed` when it is not a host and nothing more
 */
export function originOf(scheme: 'http' | 'https', host: string): URL {
  const text = `${scheme}://${host}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.href !== `${url.origin}/` || !/^[^/?#@\\\s]+$/.test(host)) {
    throw new PullError('reference-malformed', `${JSON.stringify(host)} is not a registry host`);
  }
  return url;
}
