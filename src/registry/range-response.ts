import { PullError } from '../format/error.js';
import { isCoded, parseContentLength, parseContentRange, type ResponseHeaders, single } from './headers.js';
import type { BlobSource } from './range-client.js';
import { unexpectedAnswer } from './refusal.js';
import type { BodyWindow } from './transfer.js';

/**
 * Statuses of servers that do not support ranges and do not ignore them as they should (RFC 9110,
 * 14.2): bad request, unsatisfiable, not implemented.
 */
const REFUSED_RANGE: ReadonlySet<number> = new Set([400, 416, 501]);

/** The part of a blob that a request is for; half-open, in bytes. */
export interface RequestedRange {
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  /** The manifest states no size of the blob: the response has to. */
  readonly isSizeUnknown: boolean;
  /** The request has a Range header. */
  readonly hasHeader: boolean;
  /** The caller would rather fetch the full blob than skip to a part of it. */
  readonly isPart: boolean;
}

/** The part of the body to keep and the blob's stated size, or why the response is wrong. */
type CheckedRange =
  | { readonly window: BodyWindow; readonly sizeBytes: number | undefined }
  /** `mayPass`: the next response may be right, as that of a cache that was filling. */
  | { readonly error: PullError; readonly mayPass: boolean };

/** The head of a response, and the URL that gave it. */
export interface ResponseHead {
  readonly url: URL;
  readonly status: number;
  readonly headers: ResponseHeaders;
}

/** Whether a status may mean that a server refuses Range headers. */
export function refusesRange(status: number): boolean {
  return REFUSED_RANGE.has(status);
}

/** The error that ends a range whose caller can fetch the full blob instead. */
export function rangesIgnored(host: string): PullError {
  return new PullError('unsupported', `${host} sends full blobs only and ignores ranges`);
}

/** Compares the head of a 200 or 206 with the range that was requested. */
export function checkRangeResponse(response: ResponseHead, range: RequestedRange): CheckedRange {
  return response.status === 200 ? checkFullBlob(response, range) : checkPart(response, range);
}

function checkFullBlob({ url, headers }: ResponseHead, range: RequestedRange): CheckedRange {
  const { blob, start, end, isPart } = range;
  const lengthBytes = parseContentLength(single(headers['content-length']));
  if (lengthBytes !== blob.sizeBytes) {
    if (hasCoding(headers)) return contradiction(url, range, 'encoded content', false);
    if (/^text\/html\b/i.test(single(headers['content-type']) ?? ''))
      return contradiction(url, range, 'a web page');
  }
  const wrongSize = checkSize(range, url, lengthBytes);
  if (wrongSize !== undefined) return { error: wrongSize, mayPass: true };
  if (isPart) return { error: rangesIgnored(url.host), mayPass: false };
  const isExact = end === blob.sizeBytes;
  return { window: { skipBytes: start, lengthBytes: end - start, isExact }, sizeBytes: lengthBytes };
}

/** A 206 may have less than the range that was requested (RFC 9110, 15.3.7), or more. */
function checkPart({ url, headers }: ResponseHead, range: RequestedRange): CheckedRange {
  const { start, end } = range;
  const { range: part, sizeBytes } = parseContentRange(single(headers['content-range'])) ?? {};
  const lengthBytes = parseContentLength(single(headers['content-length']));
  const isLengthOfPart = part !== undefined && lengthBytes === part.end - part.start;
  if (!isLengthOfPart && hasCoding(headers)) return contradiction(url, range, 'encoded content', false);
  if (part === undefined) return contradiction(url, range, 'a part it does not name');
  const wrongSize = checkSize(range, url, sizeBytes);
  if (wrongSize !== undefined) return { error: wrongSize, mayPass: false };
  const what = `bytes ${part.start} to ${part.end}`;
  if (part.start !== start) return contradiction(url, range, what);
  if (lengthBytes !== undefined && !isLengthOfPart)
    return contradiction(url, range, `${lengthBytes} bytes as ${what}`);
  const window = { skipBytes: 0, lengthBytes: Math.min(end, part.end) - start, isExact: part.end <= end };
  return { window, sizeBytes };
}

/**
 * Whether the body may be encoded. Storage repeats a coding with which a blob was uploaded, and its
 * bytes are those of the blob then; a proxy that encodes changes the length, or does not know it.
 * So only a response without the right length is suspect.
 */
function hasCoding(headers: ResponseHeaders): boolean {
  return isCoded(single(headers['content-encoding']));
}

function contradiction(
  url: URL,
  { blob, start, end }: RequestedRange,
  what: string,
  mayPass = true,
): CheckedRange {
  const error = unexpectedAnswer(
    `${url.host} answers for bytes ${start} to ${end} of ${blob.digest} with ${what}`,
  );
  return { error, mayPass };
}

/** The error for a wrong or missing size of the blob; undefined when the size is right. */
function checkSize({ blob, isSizeUnknown }: RequestedRange, url: URL, sizeBytes: number | undefined) {
  if (!isSizeUnknown) {
    const isRight = sizeBytes === undefined || sizeBytes === blob.sizeBytes;
    return isRight ? undefined : sizeError(blob, url, sizeBytes);
  }
  if (sizeBytes === 0) return sizeError(blob, url, sizeBytes);
  if (sizeBytes !== undefined && Number.isSafeInteger(sizeBytes)) return undefined;
  return unexpectedAnswer(
    `${url.host} does not say how large ${blob.digest} is, and neither does its manifest`,
  );
}

/** The error for a blob whose size is another than its manifest states. */
export function sizeError(blob: BlobSource, url: URL, sizeBytes: number): PullError {
  const what = Number.isNaN(sizeBytes) ? 'no valid length' : `${sizeBytes} bytes`;
  const stated = blob.sizeBytes === 0 ? 'states no size' : `says ${blob.sizeBytes}`;
  return new PullError(
    'metadata-malformed',
    `blob ${blob.digest} has ${what} at ${url.host} where its manifest ${stated}`,
    { hint: 'what the registry or a proxy before it holds is damaged, or the image was made wrongly' },
  );
}
