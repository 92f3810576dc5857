import { BlockList, isIP } from 'node:net';
import { PullError } from '../format/error.js';
import { isLoopback } from './urls.js';

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

type NamedValue = readonly [name: string, value: string | undefined];

function proxyVariable(protocol: string, environment: NetworkEnvironment): NamedValue {
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
