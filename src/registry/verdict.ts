import type { Progress, RangeJob } from './range-client.js';
import { isServerFailure, serverError } from './refusal.js';
import type { ToldRequest } from './request-line.js';
import { asksToWait, waitAfter } from './retry-after.js';
import { type Headers, type Outcome, single } from './transfer.js';

/**
 * Values of the Authorization header tried in a row. What other ranges were given meanwhile is tried before a new
 * one is asked for, and it can have expired as well; so can a new one on a slow link.
 */
const MOST_RENEWALS = 3;

/**
 * What storage says of a signed URL that has expired. A 400 is what S3 and Google Cloud Storage answer (`ExpiredToken`) when it is not
 * the URL but the credentials that signed it.
 */
const REFUSED_TARGET: ReadonlySet<number> = new Set([400, 401, 403, 410]);

/** What follows from an answer to a range that is no body; `again` says why the range is asked for again, without any secret. */
export type Verdict =
  | ({ readonly next: 'wait'; readonly waitMs: number } & Pick<ToldRequest, 'again' | 'givenUp'>)
  /** The redirect target that was remembered is refused. */
  | { readonly next: 'renew-target'; readonly refused: URL; readonly again: string }
  /** `message`: the same with the server's own words. */
  | { readonly next: 'miss'; readonly message: string; readonly again: string }
  | { readonly next: 'renew-token'; readonly again: string }
  | { readonly next: 'give-up'; readonly again?: undefined };

/** Where a range was asked for: `url`, which its blob's URL led to; `remembered` when it had led there before. */
export interface Place {
  readonly url: URL;
  readonly remembered: URL | undefined;
}

/** What to make of an answer. `nowMs` is Unix time, `random` in [0, 1). */
export function judge(
  { blob }: RangeJob,
  progress: Progress,
  { status, headers, body }: Outcome & { kind: 'answer' },
  { url, remembered }: Place,
  { nowMs, random }: { readonly nowMs: number; readonly random: number },
): Verdict {
  const waitMs = waitAfter(told(status, headers), progress.waited + 1, nowMs, random);
  if (waitMs !== undefined) {
    return { next: 'wait', waitMs, ...asksToWait(url.host, waitMs) };
  }
  if (remembered !== undefined && REFUSED_TARGET.has(status)) {
    return { next: 'renew-target', refused: remembered, again: 'the target of a redirect has expired' };
  }
  if (isServerFailure(status)) {
    const again = `${url.host} answers ${status}`;
    return { next: 'miss', message: serverError(url.host, status, body), again };
  }
  const isRegistry = url.origin === new URL(progress.url).origin;
  if (status === 401 && isRegistry && blob.anonymous !== true && progress.renewals < MOST_RENEWALS) {
    return { next: 'renew-token', again: `${url.host} wants a new token` };
  }
  return { next: 'give-up' };
}

function told(status: number, headers: Headers): { status: number; retryAfter: string | undefined } {
  return { status, retryAfter: single(headers['retry-after']) };
}
