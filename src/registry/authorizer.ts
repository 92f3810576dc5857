import { PullError } from '../format/error.js';
import {
  type Answered,
  askPatiently,
  type Context,
  createBreaks,
  currentOrigin,
  exchange,
  networkMiss,
} from './ask.js';
import type { Credential } from './credentials.js';
import { type Challenge, parseChallenges } from './headers.js';
import type { Answer } from './http-client.js';
import { noteAuthorization, noteSecret } from './redaction.js';
import {
  firstErrorMessage,
  itSays,
  loginHint,
  rateLimited,
  type Tried,
  unexpectedAnswer,
  webPageError,
} from './refusal.js';
import {
  askThreeTimes,
  basicValue,
  cachedToken,
  createTokenKeeper,
  parseToken,
  type Token,
  type TokenRequest,
  tokenRequest,
  tokenUrl,
} from './token.js';

const MAX_TOKEN_ANSWER_BYTES = 1024 * 1024;

/** What one session's questions are let in with. */
export interface Authorizer {
  /** The value of the Authorization header; see TokenKeeper. */
  authorization(stale?: string): Promise<string | undefined>;
  readonly expiresAtMs: number;
  /** Whether the present value was made for another pull: then it may be refused where a new one is not. */
  readonly isInherited: boolean;
  /** Notes what a 401 of the registry itself wants to see: the next renewal goes by it. */
  challenged(answer: Answer): void;
  /** Whose credentials the present value was had with, and where others were looked for. */
  tried(): Tried;
}

/** Authorization as the registry's challenges ask for it, with what credentials there are. */
export function createAuthorizer(context: Context): Authorizer {
  const { credentials } = context.options;
  let challenges: readonly Challenge[] | undefined;
  let found: Credential | undefined;
  let isInherited = false;

  const keeper = createTokenKeeper(async (stale) => {
    challenges ??= await probe(context);
    if (challenges.length === 0) return undefined;
    found = await credentials?.find();
    if (found !== undefined) noteSecret(found.secret);
    isInherited = false;
    const source = tokenUrl(challenges, currentOrigin(context), context.options.repository);
    if (source === undefined) return basicAuthorization(challenges, found);
    const request = tokenRequest(source, found?.secret);
    isInherited = true;
    return cachedToken(context.options.tokens, request, stale, Date.now, () => {
      isInherited = false;
      return fetchToken(context, request, found);
    });
  }, Date.now);

  return {
    authorization: async (stale) => {
      const value = await keeper.authorization(stale);
      if (value !== undefined) noteAuthorization(value);
      return value;
    },
    get expiresAtMs() {
      return keeper.expiresAtMs;
    },
    get isInherited() {
      return isInherited;
    },
    challenged: (answer) => {
      const stated = challengesOf(answer);
      // Some servers refuse a token that has expired without a word, or with an error alone (RFC 6750, 3).
      if (stated.some(canBeMet) || challenges === undefined) challenges = stated;
    },
    tried: () => ({ from: found?.from, places: credentials?.places ?? [] }),
  };
}

function challengesOf(answer: Answer): Challenge[] {
  return parseChallenges(answer.headers['www-authenticate']);
}

/** Whether a challenge says how to get in: by a token of a token server, or with a password. */
function canBeMet({ scheme, parameters }: Challenge): boolean {
  return scheme === 'basic' || (scheme === 'bearer' && parameters.has('realm'));
}

/**
 * The challenges, asked of the registry itself: for sessions whose first question comes from a worker. What the target of a redirect
 * asks for is nobody's business here.
 */
async function probe(context: Context): Promise<readonly Challenge[]> {
  const { answer, isElsewhere, next } = await askPatiently(context, '/v2/', {}, MAX_TOKEN_ANSWER_BYTES);
  return next === 'renew-token' && !isElsewhere ? challengesOf(answer) : [];
}

/** A header value that meets a challenge without a token; undefined when none can be made of these credentials. */
function basicAuthorization(
  challenges: readonly Challenge[],
  found: Credential | undefined,
): Token | undefined {
  const basic = challenges.some(({ scheme }) => scheme === 'basic');
  if (!basic || found?.secret.kind !== 'password') return undefined;
  return { value: basicValue(found.secret), expiresAtMs: Number.POSITIVE_INFINITY };
}

async function fetchToken(
  context: Context,
  { url, headers, ...asking }: TokenRequest,
  found: Credential | undefined,
): Promise<Token> {
  const breaks = createBreaks();
  const askOnce = async () => {
    const result = await exchange(context, url, headers, MAX_TOKEN_ANSWER_BYTES, asking);
    if ('again' in result) {
      breaks.count(result);
      return result;
    }
    if ('final' in result) throw result.final;
    const { body } = result.answer;
    if (result.next === 'take') return { body };
    throw tokenRefusal(context, result, found);
  };
  const body = await askThreeTimes(askOnce, ({ again, host, sign }) =>
    context.options.patience.miss(networkMiss(`no token from ${url.host}: ${again}`), { host, sign }),
  );
  const page = webPageError(url.host, 'a token', body);
  if (page !== undefined) throw page;
  return parseToken(body, url.host, Date.now());
}

/** Token servers say no to a name they do not know with 401 or 403, and to a refresh token with 400 (RFC 6749, 5.2). */
function tokenRefusal(
  { options }: Context,
  { answer, host, isElsewhere }: Answered,
  found: Credential | undefined,
): PullError {
  const { status, body } = answer;
  const words = itSays(body, ': ');
  if (isElsewhere) {
    return unexpectedAnswer(`${host}, to which the token server redirects, answered ${status}${words}`);
  }
  if (status === 429)
    return rateLimited(
      { host, words: firstErrorMessage(body) },
      `the token server ${host} does not answer any more for now (429)`,
    );
  const no = status === 401 || status === 403 || (status === 400 && found?.secret.kind === 'identity-token');
  if (!no) {
    return unexpectedAnswer(`the token server ${host} answered ${status}${words}`);
  }
  const whose = found === undefined ? '' : ` to the credentials of ${found.from}`;
  return new PullError('unauthorized', `the token server ${host} answered ${status}${whose}${words}`, {
    hint: loginHint(options.host, { from: found?.from, places: options.credentials?.places ?? [] }),
  });
}
