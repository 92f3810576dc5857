import { PullError } from '../format/error.js';
import { unexpectedAnswer } from './refusal.js';

/** References and the API use different names (a convention of Docker). */
const DOCKER_API_HOST = 'registry-1.docker.io';

/** The `host[:port]` that serves the API of the registry a reference calls `host`. */
export function apiHost(host: string): string {
  return host === 'docker.io' || host === 'index.docker.io' ? DOCKER_API_HOST : host;
}

/** DNS names have at most 253 characters, and a port six more. */
const MAX_HOST_LENGTH = 259;

/** Whether the host of a foreign URL is short enough to exist: messages repeat it. */
export function isUsableHost({ host }: URL): boolean {
  return host.length <= MAX_HOST_LENGTH;
}

/** Whether a URL's host name is this machine: `localhost`, 127.0.0.0/8 or `[::1]`. */
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

/** Registries redirect a blob once, to its storage; some storages once more. */
const MAX_REDIRECTS = 5;

/** Signed URLs are 1 to 2 KiB; servers themselves refuse lines above 8 or 16 KiB. */
const MAX_LOCATION_LENGTH = 8192;

/** Whether this status redirects a GET (RFC 9110, 15.4); 300 and 304 do not. */
export function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

/**
 * Where the `hop`th redirect (counted from 1) leads; `allowHttp` lets one lead from https to http.
 * @throws PullError `redirect-refused` for a sixth hop, from https to http, or to what is neither;
 *   `answer-unexpected` without a usable Location
 */
export function nextHop(from: URL, location: string | undefined, hop: number, allowHttp = false): URL {
  const isUsable =
    location !== undefined && location.length <= MAX_LOCATION_LENGTH && URL.canParse(location, from.href);
  const to = isUsable ? new URL(location, from) : undefined;
  if (to === undefined || !isUsableHost(to)) {
    throw unexpectedAnswer(`${from.host} redirects to nowhere: its answer has no usable Location`);
  }
  if (to.protocol !== 'https:' && to.protocol !== 'http:') {
    throw refused(`${from.host} redirects to something that is not HTTP`);
  }
  if (from.protocol === 'https:' && to.protocol === 'http:' && !allowHttp) {
    throw refused(
      `${from.host} redirects from https to plain http at ${to.host}`,
      'nothing was sent there; --allow-http-storage, or insecure = true of the registry in registries.conf, allows it for what digests prove (layers, configs, and manifests by digest): no credentials go there, but anyone on the network path sees what is pulled',
    );
  }
  if (hop > MAX_REDIRECTS) {
    throw refused(`${from.host} redirects more than ${MAX_REDIRECTS} times`);
  }
  to.username = '';
  to.password = '';
  to.hash = '';
  return to;
}

function refused(
  message: string,
  hint = 'nothing was sent there; the registry or its storage is set up wrongly',
): PullError {
  return new PullError('redirect-refused', message, { hint });
}
