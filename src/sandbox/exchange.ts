import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { type Digest, isDigest } from '../format/digest.js';
import {
  type Answer,
  answerTarget,
  blobAnswer,
  errorAnswer,
  jsonAnswer,
  parseTarget,
  type Target,
} from './answers.js';
import type { createFaults, FaultAction, FaultRequest } from './faults.js';
import type { LayoutReader } from './layout-reader.js';

/** The authentication that requests need. */
export interface TokenRule {
  /** How long a token is valid. */
  readonly expiresAfterMs?: number;
  /**
   * `USER:PASSWORD` that the token endpoint requires as Basic credentials; without it, every client
   * gets a token.
   */
  readonly credentials?: string;
}

/** The state of the registry. Only the counters of `nextFault` and `gatekeeper` change. */
export interface Registry {
  readonly layout: LayoutReader;
  readonly gatekeeper: Gatekeeper;
  readonly nextFault: ReturnType<typeof createFaults>;
  readonly requireToken: TokenRule | undefined;
  readonly tokenLifeMs: number;
  /** Port of the second origin, if there are redirects. */
  readonly signedPort: number | undefined;
}

/** The parts of an HTTP request that determine its answer. */
export interface RegistryRequest extends FaultRequest {
  readonly query: URLSearchParams;
  readonly authorization: string | undefined;
  /** Host name and port by which the client reached this server, for URLs in answers. */
  readonly hostname: string;
  readonly port: number;
  /** Whether it came to the second origin. */
  readonly signedOrigin: boolean;
}

/** The default lifetime of tokens: five minutes, as on Docker Hub. */
export const TOKEN_LIFE_MS = 300_000;
/** The default lifetime of signed URLs: 20 minutes, as of Docker's registry on S3. */
const SIGNED_LIFE_MS = 20 * 60_000;
const TOKEN_PATH = '/token';
const SERVICE = 'zpull-sandbox';

/** Returns the complete answer to a request and the fault to apply to it. */
export function chooseAnswer(
  registry: Registry,
  request: RegistryRequest,
  nowMs: number,
): { answer: Answer; action: FaultAction | undefined } {
  const target = request.signedOrigin ? undefined : parseTarget(request.path);
  const action = registry.nextFault(request, (candidate) =>
    applies(candidate, registry, request, target, nowMs),
  );
  const answer =
    (action === undefined ? undefined : scriptedAnswer(action, registry, request, target, nowMs)) ??
    (request.signedOrigin
      ? signedAnswer(registry, request, nowMs)
      : registryAnswer(registry, request, target, nowMs));
  return { answer, action };
}

/**
 * Redirects apply to blobs and challenges to the registry: on the second origin both would loop
 * forever.
 */
function applies(
  action: FaultAction,
  registry: Registry,
  request: RegistryRequest,
  target: Target | undefined,
  nowMs: number,
): boolean {
  if ('redirect' in action) return target?.kind === 'blob' && isDigest(target.digest);
  if (!('challenge' in action)) return true;
  if (target === undefined) return false;
  return (
    action.challenge.always === true ||
    !registry.gatekeeper.admits(request.authorization, scopeOf(target), nowMs)
  );
}

function scriptedAnswer(
  action: FaultAction,
  registry: Registry,
  request: RegistryRequest,
  target: Target | undefined,
  nowMs: number,
): Answer | undefined {
  if ('status' in action) {
    const { status, headers = {}, body = '' } = action;
    return { status, headers, body: Buffer.from(body), ranges: false };
  }
  if ('retryAfter' in action) {
    const { status, seconds } = action.retryAfter;
    const code = status === 429 ? 'TOOMANYREQUESTS' : 'UNAVAILABLE';
    return errorAnswer(status, code, 'try again later', { 'Retry-After': String(seconds) });
  }
  if ('challenge' in action) return challengeAnswer(request, target);
  if ('redirect' in action && target?.kind === 'blob' && isDigest(target.digest)) {
    const { expiresAfterMs = SIGNED_LIFE_MS, expiresAfterRequests } = action.redirect;
    const signed = registry.gatekeeper.signBlob(target.digest, nowMs + expiresAfterMs, expiresAfterRequests);
    const location = `http://${request.hostname}:${registry.signedPort}${signed}`;
    return { status: 307, headers: { Location: location }, body: Buffer.alloc(0), ranges: false };
  }
  return undefined;
}

function registryAnswer(
  registry: Registry,
  request: RegistryRequest,
  target: Target | undefined,
  nowMs: number,
): Answer {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return errorAnswer(405, 'UNSUPPORTED', 'this registry is read-only', { Allow: 'GET, HEAD' });
  }
  if (request.path === TOKEN_PATH) return tokenAnswer(registry, request, nowMs);
  if (target === undefined) return errorAnswer(404, 'NAME_UNKNOWN', 'no such path');
  if (
    registry.requireToken !== undefined &&
    !registry.gatekeeper.admits(request.authorization, scopeOf(target), nowMs)
  ) {
    return challengeAnswer(request, target);
  }
  return answerTarget(target, request.query, registry.layout);
}

/**
 * Returns the scope that a pull of this target needs (Docker's registry, "Token Scope
 * Documentation").
 */
function scopeOf(target: Target | undefined): string | undefined {
  return target === undefined || target.kind === 'base' ? undefined : `repository:${target.name}:pull`;
}

function challengeAnswer(request: RegistryRequest, target: Target | undefined): Answer {
  const scope = scopeOf(target);
  const challenge = [
    `Bearer realm="http://${request.hostname}:${request.port}${TOKEN_PATH}"`,
    `service="${SERVICE}"`,
    ...(scope === undefined ? [] : [`scope="${scope}"`]),
    ...(request.authorization === undefined ? [] : ['error="invalid_token"']),
  ];
  return errorAnswer(401, 'UNAUTHORIZED', 'authentication required', {
    'WWW-Authenticate': challenge.join(','),
  });
}

/**
 * Issues a token for all requested scopes (Docker's registry, "Token Authentication
 * Specification").
 */
function tokenAnswer(registry: Registry, request: RegistryRequest, nowMs: number): Answer {
  const credentials = registry.requireToken?.credentials;
  if (credentials !== undefined && !isBasic(request.authorization, credentials)) {
    return errorAnswer(401, 'UNAUTHORIZED', 'wrong user name or password', {
      'WWW-Authenticate': `Basic realm="${SERVICE}"`,
    });
  }
  const scopes = request.query.getAll('scope').flatMap((scope) => scope.split(' '));
  const token = registry.gatekeeper.issueToken(scopes, nowMs + registry.tokenLifeMs);
  return jsonAnswer(200, {
    token,
    access_token: token,
    expires_in: Math.max(1, Math.ceil(registry.tokenLifeMs / 1000)),
    issued_at: new Date(nowMs).toISOString(),
  });
}

function isBasic(authorization: string | undefined, credentials: string): boolean {
  const [, encoded = ''] = /^basic ([\w+/=-]+)$/i.exec(authorization ?? '') ?? [];
  return Buffer.from(encoded, 'base64').toString() === credentials;
}

/**
 * Answers like an object store: checks only the signature, and refuses a second authorization as S3
 * does.
 */
function signedAnswer(registry: Registry, request: RegistryRequest, nowMs: number): Answer {
  if (request.authorization !== undefined) return storeError(400, 'InvalidArgument');
  if (request.method !== 'GET' && request.method !== 'HEAD') return storeError(405, 'MethodNotAllowed');
  if (!registry.gatekeeper.acceptsSigned(request.path, request.query, nowMs)) {
    return storeError(403, 'AccessDenied');
  }
  const digest = request.path.slice(SIGNED_PREFIX.length);
  return isDigest(digest) ? blobAnswer(digest, registry.layout) : storeError(404, 'NoSuchKey');
}

function storeError(status: number, code: string): Answer {
  return {
    status,
    headers: { 'Content-Type': 'application/xml' },
    body: Buffer.from(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code></Error>`),
    ranges: false,
  };
}

/** Signs and checks bearer tokens and URLs of the second origin. */
interface Gatekeeper {
  /** Returns a token for these scopes that is valid until `expiresMs`. */
  issueToken(scopes: readonly string[], expiresMs: number): string;
  /**
   * Returns whether an Authorization header has a token that is valid at `nowMs` and covers
   * `scope`.
   */
  admits(authorization: string | undefined, scope: string | undefined, nowMs: number): boolean;
  /**
   * Returns a signed path and query for a blob on the second origin, valid until `expiresMs` for at
   * most `maxUses` requests.
   */
  signBlob(digest: Digest, expiresMs: number, maxUses?: number): string;
  /** Returns whether a path and query are signed and valid at `nowMs`, and counts one use. */
  acceptsSigned(path: string, query: URLSearchParams, nowMs: number): boolean;
}

/** Path prefix of signed URLs on the second origin. */
const SIGNED_PREFIX = '/signed/';

/** Signed URLs with counted uses, 1 MB; beyond the limit the oldest expire. */
const MAX_COUNTED = 10_000;

/**
 * Creates a gatekeeper with a random key, so that nothing stays valid after the server has ended.
 */
export function createGatekeeper(): Gatekeeper {
  const key = randomBytes(32);
  /** Remaining uses of signed URLs, by number. */
  const remaining = new Map<string, number>();
  let numbered = 0;
  const sign = (text: string): string => createHmac('sha256', key).update(text).digest('hex');
  const isSigned = (text: string, signature: string): boolean => {
    const expected = Buffer.from(sign(text));
    const actual = Buffer.from(signature);
    return actual.length === expected.length && timingSafeEqual(actual, expected);
  };
  return {
    issueToken: (scopes, expiresMs) => {
      const claim = Buffer.from(JSON.stringify({ scopes, expiresMs })).toString('base64url');
      return `${claim}.${sign(`token ${claim}`)}`;
    },
    admits: (authorization, scope, nowMs) => {
      const [, claim = '', signature = ''] =
        /^bearer ([\w-]+)\.([0-9a-f]+)$/i.exec(authorization ?? '') ?? [];
      if (!isSigned(`token ${claim}`, signature)) return false;
      const { scopes, expiresMs } = JSON.parse(Buffer.from(claim, 'base64url').toString()) as {
        scopes: string[];
        expiresMs: number;
      };
      return nowMs < expiresMs && (scope === undefined || scopes.some((granted) => covers(granted, scope)));
    },
    signBlob: (digest, expiresMs, maxUses) => {
      const path = `${SIGNED_PREFIX}${digest}`;
      const number = maxUses === undefined ? '' : String(++numbered);
      if (maxUses !== undefined && maxUses > 0) remaining.set(number, maxUses);
      if (remaining.size > MAX_COUNTED) remaining.delete(remaining.keys().next().value!);
      const signature = sign(`url ${path} ${expiresMs} ${number}`);
      return `${path}?expires=${expiresMs}&number=${number}&signature=${signature}`;
    },
    acceptsSigned: (path, query, nowMs) => {
      const [expires, number, signature] = ['expires', 'number', 'signature'].map(
        (name) => query.get(name) ?? '',
      );
      if (!isSigned(`url ${path} ${expires} ${number}`, signature!) || nowMs >= Number(expires)) return false;
      if (number === '') return true;
      const uses = remaining.get(number!) ?? 0;
      if (uses > 1) remaining.set(number!, uses - 1);
      else remaining.delete(number!);
      return uses > 0;
    },
  };
}

/** Returns whether a scope such as `repository:a/b:pull,push` covers `repository:a/b:pull`. */
function covers(granted: string, required: string): boolean {
  const cut = required.lastIndexOf(':');
  return (
    granted.startsWith(required.slice(0, cut + 1)) &&
    granted
      .slice(cut + 1)
      .split(',')
      .includes(required.slice(cut + 1))
  );
}
