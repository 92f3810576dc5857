import { BlockList, isIP } from 'node:net';
import { PullError } from '../format/error.js';
import { unexpectedAnswer } from './refusal.js';

/** The environment variables for the network, as Go, curl and Node know them. */
const VARIABLES = [
  'HOME',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'NODE_EXTRA_CA_CERTS',
  'HTTP_PROXY',
  'http_proxy',
  'HTTPS_PROXY',
  'https_proxy',
  'NO_PROXY',
  'no_proxy',
  'REQUEST_METHOD',
] as const;

export type NetworkEnvironment = Readonly<Partial<Record<(typeof VARIABLES)[number], string>>>;

/** How the servers of a registry are reached: plain data, which workers receive, too. */
export interface Transport {
  readonly tlsVerify: boolean;
  /** `host[:port]` as references have it: names the registry's certificate directories. */
  readonly host: string;
  /** Replaces the registry's certificate directories. */
  readonly certDir?: string;
  readonly environment: NetworkEnvironment;
  /** A redirect may lead from https to http. */
  readonly allowHttpStorage?: boolean | undefined;
}

/** The variables of `env` that concern the network; an empty one counts as unset. */
export function networkEnvironment(env: NodeJS.ProcessEnv): NetworkEnvironment {
  const given = VARIABLES.flatMap((name) => (env[name] ? [[name, env[name]]] : []));
  return Object.fromEntries(given) as NetworkEnvironment;
}

/** An HTTP proxy. */
export interface HttpProxy {
  /** `http://host:port` or `https://host:port`. */
  readonly origin: string;
  /** Its `host:port`, for messages. */
  readonly host: string;
  /** The value of Proxy-Authorization, from user and password in the URL. */
  readonly authorization: string | undefined;
}

/**
 * The proxy for requests to `target`: `HTTP_PROXY` or `HTTPS_PROXY` by its scheme, unless
 * `NO_PROXY` names it; in upper or lower case, by Go's rules (golang.org/x/net/http/httpproxy).
 * Loopback hosts never use a proxy. `HTTP_PROXY` is ignored in a CGI program (`REQUEST_METHOD` is
 * set), which gets that variable from a request's header `Proxy`.
 * @throws PullError `option-malformed` for a proxy that is no http(s) URL
 */
export function proxyFor(target: URL, environment: NetworkEnvironment): HttpProxy | undefined {
  const [name, value] = proxyVariable(target.protocol, environment);
  if (value === undefined || isLoopback(target.hostname)) return undefined;
  if (isExcluded(target, environment.NO_PROXY ?? environment.no_proxy ?? '')) return undefined;
  return parseProxy(name, value);
}

function proxyVariable(
  protocol: string,
  environment: NetworkEnvironment,
): readonly [name: string, value: string | undefined] {
  const { HTTP_PROXY, http_proxy, HTTPS_PROXY, https_proxy, REQUEST_METHOD } = environment;
  if (protocol === 'https:')
    return HTTPS_PROXY === undefined ? ['https_proxy', https_proxy] : ['HTTPS_PROXY', HTTPS_PROXY];
  const isTrusted = HTTP_PROXY !== undefined && REQUEST_METHOD === undefined;
  return isTrusted ? ['HTTP_PROXY', HTTP_PROXY] : ['http_proxy', http_proxy];
}

/** An error repeats nothing of a malformed value: it may hold a password. */
function parseProxy(name: string, value: string): HttpProxy {
  const text = value.includes('://') ? value : `http://${value}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    if (url !== undefined && /^socks/.test(url.protocol)) {
      throw new PullError('option-malformed', `${name} names a SOCKS proxy, which is not supported`, {
        hint: 'name an HTTP proxy, such as privoxy or gost, which can forward to the SOCKS proxy, or put the host into NO_PROXY if it can be reached without',
      });
    }
    throw new PullError('option-malformed', `${name} is not the URL of an http or https proxy`, {
      hint: 'write it like http://proxy.example:3128, with USER:PASSWORD@ before the host if it requires them',
    });
  }
  const { username, password, origin } = url;
  const credentials = [username, password].map(decode).join(':');
  const authorization =
    credentials === ':' ? undefined : `Basic ${Buffer.from(credentials).toString('base64')}`;
  return { origin, host: `${url.hostname}:${portOf(url)}`, authorization };
}

/** A percent sign that begins no escape stands for itself, as in curl. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The port of a URL, explicit or default. */
export function portOf({ protocol, port }: URL): number {
  if (port !== '') return Number(port);
  return protocol === 'https:' ? 443 : 80;
}

/** Whether an entry matches this host: `*`, an address, a CIDR block, a domain; a port. */
function isExcluded(target: URL, noProxy: string): boolean {
  const host = target.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  return noProxy
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .some((entry) => entry !== '' && matches(entry, host, portOf(target)));
}

function matches(entry: string, host: string, port: number): boolean {
  if (entry === '*') return true;
  if (entry.includes('/')) return isInBlock(entry, host);
  const { name, port: entryPort } = splitPort(entry);
  if (entryPort !== undefined && entryPort !== port) return false;
  const family = isIP(name);
  if (family !== 0) return isInBlock(`${name}/${family === 4 ? 32 : 128}`, host);
  // `.domain` and `*.domain` match subdomains only, `domain` matches itself as well.
  const domain = name.replace(/^\*?\./, '');
  return host.endsWith(`.${domain}`) || (host === domain && domain === name);
}

function splitPort(entry: string): { name: string; port: number | undefined } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [];
  return { name: bracketed ?? plain ?? entry, port: port === undefined ? undefined : Number(port) };
}

/**
 * Whether a host lies in a block like `10.0.0.0/8`. BlockList throws for a zone (`%eth0`), and
 * aborts the process for a length of -0.
 */
function isInBlock(block: string, host: string): boolean {
  const [, network = '', length = ''] = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(block) ?? [];
  const bits = Number(length);
  const family = isIP(network) === 6 ? 'ipv6' : 'ipv4';
  const maxBits = family === 'ipv6' ? 128 : 32;
  if (isIP(network) === 0 || isIP(host) === 0 || bits > maxBits) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, family);
  return list.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4');
}

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
