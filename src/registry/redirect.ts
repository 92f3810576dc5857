import { PullError } from '../format/error.js';
import { isUsableHost } from './hosts.js';
import { unexpectedAnswer } from './refusal.js';

/** Registries redirect a blob once, to its storage; some storages once more. */
const MAX_HOPS = 5;

/** Signed URLs are 1 to 2 KiB; servers themselves refuse lines above 8 or 16 KiB. */
const MAX_LOCATION_LENGTH = 8192;

/** Whether this status sends a GET elsewhere (RFC 9110, 15.4); 300 and 304 do not. */
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
      'nothing was sent there; --allow-http-storage, or insecure = true of the registry in registries.conf, allows it for what digests prove (layers, configs, and manifests by digest): no credentials go there, but whoever is on the way sees what is pulled',
    );
  }
  if (hop > MAX_HOPS) {
    throw refused(`${from.host} redirects more than ${MAX_HOPS} times`);
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
