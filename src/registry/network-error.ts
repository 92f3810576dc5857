import { MAX_HEADER_BYTES } from './small-answers.js';

/** What went wrong on the network, for a user, and whether asking again can help. */
export interface NetworkFault {
  readonly message: string;
  readonly hint?: string;
  /** True: the same would happen again; it is reported at once and is no miss. */
  readonly final: boolean;
  /** What the failure says about the host, where it says anything. */
  readonly sign?: Sign;
}

/** `alive`: the host accepted a connection or answered before it failed. `silent`: a timeout ended the request. */
type Sign = 'alive' | 'silent';

/** The host that a failure is about, and what it says about it. */
export interface FailedHost {
  readonly host: string;
  readonly sign?: Sign | undefined;
}

const CODE_CONNECT_TIMEOUT = 'ZPULL_CONNECT_TIMEOUT';
const CODE_IDLE_TIMEOUT = 'ZPULL_IDLE_TIMEOUT';
const CODE_ANSWER_TIMEOUT = 'ZPULL_ANSWER_TIMEOUT';
const CODE_WHOLE_TIMEOUT = 'ZPULL_WHOLE_TIMEOUT';

const TIMEOUT_CODES = {
  connect: CODE_CONNECT_TIMEOUT,
  answer: CODE_ANSWER_TIMEOUT,
  idle: CODE_IDLE_TIMEOUT,
  whole: CODE_WHOLE_TIMEOUT,
};

/** OpenSSL's verification errors as Node names them, and Node's own for a wrong host name. */
const CERTIFICATE =
  /^(CERT_|CRL_|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|UNABLE_TO_|ERR_TLS_CERT_ALTNAME_INVALID$|HOSTNAME_MISMATCH$|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$)/;

/**
 * Reasons of OpenSSL's TLS errors by their numbers (sslerr.h): node:http tells some of them as EPROTO with the number in the text
 * only, undici by a name.
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

/** What a server with something else than TLS looks like to undici; to node:http it is EPROTO. */
const NOT_TLS = new Set([
  'EPROTO',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
]);

const CLIENT_CERTIFICATE_HINT =
  'put the client certificate as NAME.cert and its key as NAME.key into a directory and name that with --cert-dir (or keep them in ~/.config/containers/certs.d/HOST)';

const SENTENCES: Readonly<Record<string, (host: string) => NetworkFault>> = {
  ENOTFOUND: (host) => ({
    message: `cannot find host ${host}`,
    hint: 'check the name for typing errors',
    final: false,
  }),
  EAI_AGAIN: (host) => ({
    message: `cannot look up host ${host}: the name server does not answer`,
    hint: 'check this machine’s network connection',
    final: false,
  }),
  ECONNREFUSED: (host) => ({
    message: `${host} refuses the connection`,
    hint: 'check that a registry runs there and that the port is right',
    final: false,
  }),
  EHOSTUNREACH: (host) => ({ message: `there is no way to host ${host}`, final: false }),
  ENETUNREACH: (host) => ({ message: `there is no network that leads to ${host}`, final: false }),
  ETIMEDOUT: (host) => ({ message: `${host} did not answer in time`, final: false, sign: 'silent' }),
  [CODE_CONNECT_TIMEOUT]: noConnection,
  [CODE_ANSWER_TIMEOUT]: (host) => ({
    message: `${host} did not begin to answer in time`,
    hint: 'a registry that fetches the image from elsewhere first may take minutes: wait longer with --answer-timeout SECONDS',
    final: false,
    sign: 'silent',
  }),
  [CODE_IDLE_TIMEOUT]: (host) => ({
    message: `${host} sent nothing for too long`,
    final: false,
    sign: 'silent',
  }),
  [CODE_WHOLE_TIMEOUT]: (host) => ({ message: `${host} took too long for a small answer`, final: false }),
  ECONNRESET: brokeOff,
  EPIPE: brokeOff,
  UND_ERR_SOCKET: brokeOff,
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: brokeOff,
  ERR_SSL_UNSUPPORTED_PROTOCOL: oldTls,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: oldTls,
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: (host) => ({
    message: `${host} ends the TLS handshake: it wants a client certificate, or a version or cipher of TLS that is not spoken here`,
    hint: `if it wants a client certificate, ${CLIENT_CERTIFICATE_HINT}; else its operator has to allow TLS 1.2 or 1.3`,
    final: true,
  }),
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: (host) => ({
    message: `${host} wants a client certificate`,
    hint: CLIENT_CERTIFICATE_HINT,
    final: true,
  }),
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: badClientCertificate,
  ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: badClientCertificate,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: badClientCertificate,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: badClientCertificate,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: badClientCertificate,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: badClientCertificate,
  HPE_HEADER_OVERFLOW: longHeaders,
  UND_ERR_HEADERS_OVERFLOW: longHeaders,
};

function brokeOff(host: string): NetworkFault {
  return { message: `${host} broke off the connection`, final: false, sign: 'alive' };
}

function oldTls(host: string): NetworkFault {
  return {
    message: `${host} speaks only versions of TLS that are too old to be safe`,
    hint: 'its operator has to allow TLS 1.2 or 1.3; a proxy before it may be older than it is',
    final: true,
  };
}

function badClientCertificate(host: string): NetworkFault {
  return {
    message: `${host} does not accept the client certificate`,
    hint: 'check NAME.cert and NAME.key in the directory of --cert-dir or certs.d/HOST: which authority signed them, and until when they are good',
    final: true,
  };
}

function longHeaders(host: string): NetworkFault {
  return {
    message: `${host} answers with more than ${MAX_HEADER_BYTES / 1024} KiB of headers`,
    hint: 'a proxy before it may add them: --debug tells of each request; its operator has to shorten them',
    final: true,
  };
}

function noConnection(host: string): NetworkFault {
  return { message: `cannot connect to ${host} in time`, final: false, sign: 'silent' };
}

/** The error of a connection that was not made, an answer that did not go on, or one that did not end, within its time. */
export function timeoutError(phase: keyof typeof TIMEOUT_CODES): Error {
  return Object.assign(new Error(`${phase} timeout`), { code: TIMEOUT_CODES[phase] });
}

/** Marks an error as a proxy's, `host:port`; `status` is what it answered to CONNECT. */
export function proxyError(error: Error, proxy: string, status?: number): Error {
  return Object.assign(error, { proxy, proxyStatus: status });
}

interface ProxyMark {
  readonly proxy: string;
  readonly proxyStatus?: number;
}

function proxyMark(error: unknown): ProxyMark | undefined {
  if (!(error instanceof Error) || !('proxy' in error)) return undefined;
  return error as Error & ProxyMark;
}

/** A proxy that is there and does not give us a connection to `host`. */
function refusedByProxy(proxy: string, status: number, host: string): NetworkFault {
  if (status === 407) {
    return {
      message: `the proxy ${proxy} wants credentials`,
      hint: 'put USER:PASSWORD@ before its host in HTTPS_PROXY or HTTP_PROXY',
      final: true,
    };
  }
  if (status >= 500) {
    return { message: `the proxy ${proxy} cannot reach ${host} (${status})`, final: false, sign: 'alive' };
  }
  return {
    message: `the proxy ${proxy} does not let us reach ${host} (${status})`,
    hint: 'ask whoever runs the proxy, or name the host in NO_PROXY if it can be reached without',
    final: true,
  };
}

/** The code of a system, TLS, HTTP parser or undici error, that of its first part when several addresses were tried. */
function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  if ('code' in error && error.code === 'EPROTO' && error instanceof Error) {
    const [, number = ''] = /error:([0-9A-F]{8}):/.exec(error.message) ?? [];
    return TLS_REASONS[number] ?? 'EPROTO';
  }
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error instanceof AggregateError ? codeOf(error.errors[0]) : '';
}

/** Whether the peer answered, but not in HTTP. */
function isNotHttp(code: string): boolean {
  return code.startsWith('HPE_');
}

/** Whether a peer asked in plain HTTP failed in a way in which a TLS server fails: no HTTP, or the end. */
export function mayBeTls(error: unknown): boolean {
  const code = codeOf(error);
  return isNotHttp(code) || code === 'ECONNRESET' || code === 'EPIPE';
}

/** Whether the peer answered a TLS greeting with something else. */
export function isNotTls(error: unknown): boolean {
  return NOT_TLS.has(codeOf(error));
}

/**
 * The sentence for a network error of `host`. Nothing of the error's own text is passed on: it may hold a URL.
 */
export function describeNetworkError(error: unknown, host: string): NetworkFault {
  const mark = proxyMark(error);
  if (mark === undefined) return describeCode(codeOf(error), host);
  if (mark.proxyStatus !== undefined) return refusedByProxy(mark.proxy, mark.proxyStatus, host);
  const code = codeOf(error);
  const fault = describeCode(code, `the proxy ${mark.proxy}`);
  if (CERTIFICATE.test(code) || code === CODE_ANSWER_TIMEOUT) return fault;
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
  const sentence = Object.hasOwn(SENTENCES, code) ? SENTENCES[code] : undefined;
  if (sentence !== undefined) return sentence(host);
  if (isNotHttp(code)) return { message: `${host} does not answer in HTTP (${code})`, final: false };
  return { message: `the connection to ${host} failed${code === '' ? '' : ` (${code})`}`, final: false };
}

function describeCertificate(code: string, host: string): NetworkFault {
  const risk = '--tls-verify=false accepts the risk';
  const told = (what: string, hint: string): NetworkFault => ({
    message: `the TLS certificate of ${host} ${what} (${code})`,
    hint: `${hint}; ${risk}`,
    final: true,
  });
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return told('has expired', 'its operator has to renew it, unless the clock of this machine is wrong');
    case 'CERT_NOT_YET_VALID':
      return told('is not valid yet', 'check the clock of this machine');
    case 'CERT_REVOKED':
      return told('has been revoked', 'its operator has to replace it');
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
    case 'HOSTNAME_MISMATCH':
      return told(
        'is for another name',
        'check the host in the name of the image: the certificate has to state it',
      );
    default:
      return told(
        'is not trusted',
        'put the certificate of the authority that signed it, as ca.crt, into a directory and name that with --cert-dir (or keep it in ~/.config/containers/certs.d/HOST)',
      );
  }
}
