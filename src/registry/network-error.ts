import { MAX_HEADER_BYTES } from './response-limits.js';

/** A network failure, described for a user, and whether a retry can help. */
export interface NetworkFault {
  readonly message: string;
  readonly hint?: string;
  /** A retry would fail in the same way: it is reported at once and is no miss. */
  readonly final: boolean;
  /** What the failure shows about the host, if anything. */
  readonly sign?: Sign;
}

/** `alive`: the host accepted a connection or answered. `silent`: the request timed out. */
type Sign = 'alive' | 'silent';

/** The host of a failure, and what the failure shows about it. */
export interface FailedHost {
  readonly host: string;
  readonly sign?: Sign | undefined;
}

const TIMEOUT_CODES = {
  connect: 'ZPULL_CONNECT_TIMEOUT',
  answer: 'ZPULL_ANSWER_TIMEOUT',
  idle: 'ZPULL_IDLE_TIMEOUT',
  small: 'ZPULL_SMALL_RESPONSE_TIMEOUT',
} as const;

/** OpenSSL's verification errors as Node names them, and Node's own for a wrong host name. */
const CERTIFICATE =
  /^(CERT_|CRL_|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|UNABLE_TO_|ERR_TLS_CERT_ALTNAME_INVALID$|HOSTNAME_MISMATCH$|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$)/;

/**
 * Reasons of OpenSSL's TLS errors by their numbers (sslerr.h): node:http reports some of them as
 * EPROTO with the number in the message only, undici by name.
 */
const TLS_REASONS: Readonly<Record<string, string>> = {
  '0A000102': 'ERR_SSL_UNSUPPORTED_PROTOCOL',
  '0A00042E': 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
  '0A000410': 'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
  '0A000412': 'ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE',
  '0A000413': 'ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE',
  '0A000414': 'ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED',
  '0A000415': 'ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED',
  '0A000416': 'ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN',
  '0A000418': 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
  '0A00045C': 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
};

/** The codes of a server without TLS in undici; in node:http it is EPROTO. */
const NOT_TLS = new Set([
  'EPROTO',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
]);

const CLIENT_CERTIFICATE_HINT =
  'put the client certificate as NAME.cert and its key as NAME.key into a directory and name that with --cert-dir (or keep them in ~/.config/containers/certs.d/HOST)';

/** Placeholder for the host in the messages below. */
const HOST = '{host}';

/** A message about a host; a retry may help unless `final`. */
type Template = Omit<NetworkFault, 'final'> & { readonly final?: true };

const OR_PROXY = 'where the internet is reached through a proxy, set HTTPS_PROXY';

const NETWORK_HINT = `check this machine’s network connection; ${OR_PROXY}`;

const BROKE_OFF: Template = { message: `${HOST} broke off the connection`, sign: 'alive' };

const OLD_TLS: Template = {
  message: `${HOST} supports only TLS versions that are too old to be safe`,
  hint: 'its operator has to allow TLS 1.2 or 1.3; a proxy before it may be older than it is',
  final: true,
};

const BAD_CLIENT_CERTIFICATE: Template = {
  message: `${HOST} does not accept the client certificate`,
  hint: 'check NAME.cert and NAME.key in the directory of --cert-dir or certs.d/HOST: which authority signed them, and until when they are good',
  final: true,
};

const LONG_HEADERS: Template = {
  message: `${HOST} answers with more than ${MAX_HEADER_BYTES / 1024} KiB of headers`,
  hint: 'a proxy before it may add them: --debug logs each request; its operator has to shorten them',
  final: true,
};

const TEMPLATES: Readonly<Record<string, Template>> = {
  ENOTFOUND: {
    message: `cannot find host ${HOST}`,
    hint: `check the name for typing errors; ${OR_PROXY}`,
  },
  EAI_AGAIN: {
    message: `cannot look up host ${HOST}: the name server does not answer`,
    hint: NETWORK_HINT,
  },
  ECONNREFUSED: {
    message: `${HOST} refuses the connection`,
    hint: 'check that a registry runs there and that the port is right',
  },
  EHOSTUNREACH: { message: `no route to host ${HOST}`, hint: NETWORK_HINT },
  ENETUNREACH: { message: `the network of ${HOST} is unreachable`, hint: NETWORK_HINT },
  ETIMEDOUT: { message: `${HOST} did not answer in time`, sign: 'silent' },
  [TIMEOUT_CODES.connect]: {
    message: `cannot connect to ${HOST} in time`,
    hint: `check the name and this machine’s network; ${OR_PROXY}; on a slow network wait longer with --connect-timeout SECONDS`,
    sign: 'silent',
  },
  [TIMEOUT_CODES.answer]: {
    message: `${HOST} did not begin to answer in time`,
    hint: 'a registry that fetches the image from elsewhere first may take minutes: wait longer with --answer-timeout SECONDS',
    sign: 'silent',
  },
  [TIMEOUT_CODES.idle]: { message: `${HOST} sent nothing for too long`, sign: 'silent' },
  [TIMEOUT_CODES.small]: { message: `${HOST} took too long to send a small response` },
  ECONNRESET: BROKE_OFF,
  EPIPE: BROKE_OFF,
  UND_ERR_SOCKET: BROKE_OFF,
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: BROKE_OFF,
  ERR_SSL_UNSUPPORTED_PROTOCOL: OLD_TLS,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: OLD_TLS,
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: {
    message: `${HOST} ends the TLS handshake: it requires a client certificate, or a version or cipher of TLS that zpull does not support`,
    hint: `if it requires a client certificate, ${CLIENT_CERTIFICATE_HINT}; else its operator has to allow TLS 1.2 or 1.3`,
    final: true,
  },
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: {
    message: `${HOST} requires a client certificate`,
    hint: CLIENT_CERTIFICATE_HINT,
    final: true,
  },
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: BAD_CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: BAD_CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: BAD_CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: BAD_CLIENT_CERTIFICATE,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: BAD_CLIENT_CERTIFICATE,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: BAD_CLIENT_CERTIFICATE,
  HPE_HEADER_OVERFLOW: LONG_HEADERS,
  UND_ERR_HEADERS_OVERFLOW: LONG_HEADERS,
};

/** The error for a connection or response that did not begin, continue or end in time. */
export function timeoutError(phase: keyof typeof TIMEOUT_CODES): Error {
  return Object.assign(new Error(`${phase} timeout`), { code: TIMEOUT_CODES[phase] });
}

/** Marks an error as that of a proxy, `host:port`; `status` is its response to CONNECT. */
export function proxyError(error: Error, proxy: string, status?: number): Error {
  return Object.assign(error, { proxy, proxyStatus: status });
}

interface ProxyMark {
  readonly proxy: string;
  readonly proxyStatus?: number;
}

/** The failure of a proxy that refuses a connection to `host`. */
function refusedByProxy(proxy: string, status: number, host: string): NetworkFault {
  if (status === 407) {
    return {
      message: `the proxy ${proxy} requires credentials`,
      hint: 'put USER:PASSWORD@ before its host in HTTPS_PROXY or HTTP_PROXY',
      final: true,
    };
  }
  if (status >= 500) {
    return { message: `the proxy ${proxy} cannot reach ${host} (${status})`, final: false, sign: 'alive' };
  }
  return {
    message: `the proxy ${proxy} refuses to connect to ${host} (${status})`,
    hint: 'ask its operator, or name the host in NO_PROXY if it can be reached without',
    final: true,
  };
}

/** The code of a network error; the first one when several addresses were tried. */
function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  if ('code' in error && error.code === 'EPROTO' && error instanceof Error) {
    const [, number = ''] = /error:([0-9A-F]{8}):/.exec(error.message) ?? [];
    return TLS_REASONS[number] ?? 'EPROTO';
  }
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error instanceof AggregateError ? codeOf(error.errors[0]) : '';
}

/** Whether plain HTTP failed as with a TLS server: no HTTP, or a closed connection. */
export function mayBeTls(error: unknown): boolean {
  const code = codeOf(error);
  return code.startsWith('HPE_') || code === 'ECONNRESET' || code === 'EPIPE';
}

/** Whether the peer responded to a TLS handshake with something else. */
export function isNotTls(error: unknown): boolean {
  return NOT_TLS.has(codeOf(error));
}

/** Describes a network error of `host`, without its own message, which may hold a URL. */
export function describeNetworkError(error: unknown, host: string): NetworkFault {
  const code = codeOf(error);
  if (!(error instanceof Error) || !('proxy' in error)) return describeCode(code, host);
  const { proxy, proxyStatus } = error as Error & ProxyMark;
  if (proxyStatus !== undefined) return refusedByProxy(proxy, proxyStatus, host);
  const fault = describeCode(code, `the proxy ${proxy}`);
  if (CERTIFICATE.test(code) || code === TIMEOUT_CODES.answer) return fault;
  return { ...fault, hint: 'check HTTP_PROXY, HTTPS_PROXY and NO_PROXY' };
}

function describeCode(code: string, host: string): NetworkFault {
  if (CERTIFICATE.test(code)) return describeCertificate(code, host);
  if (NOT_TLS.has(code)) {
    return {
      message: `${host} does not speak TLS`,
      hint: 'if this registry has no TLS, allow it with --plain-http',
      final: true,
    };
  }
  const template = Object.hasOwn(TEMPLATES, code) ? TEMPLATES[code] : undefined;
  if (template !== undefined)
    return { final: false, ...template, message: template.message.replace(HOST, () => host) };
  if (code.startsWith('HPE_')) return { message: `${host} does not speak HTTP (${code})`, final: false };
  return { message: `the connection to ${host} failed${code === '' ? '' : ` (${code})`}`, final: false };
}

const OTHER_NAME = [
  'is for another name',
  'check the host in the name of the image: the certificate has to state it',
] as const;

/** Faults of a certificate with their hints; any other fault means an untrusted one. */
const CERTIFICATE_FAULTS: Readonly<Record<string, readonly [what: string, hint: string]>> = {
  CERT_HAS_EXPIRED: [
    'has expired',
    'its operator has to renew it, unless the clock of this machine is wrong',
  ],
  CERT_NOT_YET_VALID: ['is not valid yet', 'check the clock of this machine'],
  CERT_REVOKED: ['has been revoked', 'its operator has to replace it'],
  ERR_TLS_CERT_ALTNAME_INVALID: OTHER_NAME,
  HOSTNAME_MISMATCH: OTHER_NAME,
};

const UNTRUSTED = [
  'is not trusted',
  'put the certificate of the authority that signed it, as ca.crt, into a directory and name that with --cert-dir (or keep it in ~/.config/containers/certs.d/HOST)',
] as const;

function describeCertificate(code: string, host: string): NetworkFault {
  const [what, hint] = CERTIFICATE_FAULTS[code] ?? UNTRUSTED;
  return {
    message: `the TLS certificate of ${host} ${what} (${code})`,
    hint: `${hint}; --tls-verify=false accepts the risk`,
    final: true,
  };
}
