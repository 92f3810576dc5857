import { type Answer, errorAnswer } from './answers.js';
import { bodySizeBytes } from './body.js';
import type { FaultAction } from './faults.js';

/** The answer to send for one request. */
export interface Transmission {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Answer['body'];
  /** Bytes [start, end) of the body are sent. */
  readonly start: number;
  readonly end: number;
  readonly flipByteAt: number | undefined;
  /** Maximum rate of this body. */
  readonly bytesPerSecond: number | undefined;
  /**
   * How the answer breaks off at `end`, if it does; `beforeHeaders`: not even the headers are sent.
   */
  readonly cut: { readonly how: 'close' | 'stall'; readonly beforeHeaders: boolean } | undefined;
  /** The satisfiable range of the request, before the fault is applied. */
  readonly requested: ByteRange | undefined;
}

/** Applies the range of a request and then a fault to an answer. */
export function shapeAnswer(
  answer: Answer,
  request: {
    readonly method: string;
    readonly range: string | undefined;
    readonly ifRange: string | undefined;
  },
  action: FaultAction | undefined,
): Transmission {
  const sizeBytes = bodySizeBytes(answer.body);
  const honoursRange =
    answer.ranges &&
    request.method === 'GET' &&
    (request.ifRange === undefined || request.ifRange === answer.headers['ETag']);
  const requested = honoursRange ? parseRange(request.range, sizeBytes) : undefined;
  if (requested === 'unsatisfiable') {
    const headers = { 'Content-Range': `bytes */${sizeBytes}` };
    return shapeAnswer(errorAnswer(416, 'RANGE_INVALID', 'no such bytes', headers), request, action);
  }
  const ranged = rangeToSend(action, requested);
  const { start, end } = ranged ?? { start: 0, end: sizeBytes };
  return {
    status: ranged === undefined ? answer.status : 206,
    headers: {
      'Content-Length': String(end - start),
      ...answer.headers,
      ...(action !== undefined && 'withHeaders' in action ? action.withHeaders : {}),
      ...(ranged === undefined ? {} : { 'Content-Range': statedRange(action, ranged, sizeBytes) }),
    },
    body: answer.body,
    ...cutBody(action, start, request.method === 'HEAD' ? start : end),
    flipByteAt: action !== undefined && 'flipByteAt' in action ? action.flipByteAt : undefined,
    bytesPerSecond: action !== undefined && 'drip' in action ? action.drip.bytesPerSecond : undefined,
    requested,
  };
}

function rangeToSend(
  action: FaultAction | undefined,
  requested: ByteRange | undefined,
): ByteRange | undefined {
  if (action === undefined || requested === undefined) return requested;
  if ('ignoreRange' in action) return undefined;
  return 'shortRange' in action
    ? { start: requested.start, end: Math.min(requested.end, requested.start + action.shortRange) }
    : requested;
}

function statedRange(action: FaultAction | undefined, range: ByteRange, sizeBytes: number): string {
  return action !== undefined && 'wrongContentRange' in action
    ? action.wrongContentRange
    : contentRange(range, sizeBytes);
}

function cutBody(
  action: FaultAction | undefined,
  start: number,
  end: number,
): Pick<Transmission, 'start' | 'end' | 'cut'> {
  const cut = cutOf(action);
  // A body that is shorter than the cut is sent completely.
  if (cut === undefined || (cut.bytes > 0 && start + cut.bytes >= end)) return { start, end, cut: undefined };
  return { start, end: start + cut.bytes, cut: { how: cut.how, beforeHeaders: cut.bytes === 0 } };
}

function cutOf(action: FaultAction | undefined): { how: 'close' | 'stall'; bytes: number } | undefined {
  if (action === undefined) return undefined;
  if ('closeAfterBytes' in action) return { how: 'close', bytes: action.closeAfterBytes };
  if ('drip' in action && action.drip.closeAfterBytes !== undefined) {
    return { how: 'close', bytes: action.drip.closeAfterBytes };
  }
  if ('stallAfterBytes' in action) return { how: 'stall', bytes: action.stallAfterBytes };
  return undefined;
}

/** Bytes [start, end) of a body. */
interface ByteRange {
  readonly start: number;
  readonly end: number;
}

const SINGLE_RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/;

/**
 * Parses a Range header for a body of `sizeBytes` (RFC 9110, 14.2).
 * @returns 'unsatisfiable' for status 416; undefined for a header that the server ignores because
 *   it is absent, malformed or has several ranges
 */
export function parseRange(
  header: string | undefined,
  sizeBytes: number,
): ByteRange | 'unsatisfiable' | undefined {
  const parts = header === undefined ? null : SINGLE_RANGE.exec(header);
  if (parts === null) return undefined;
  const [, first = '', last = ''] = parts;
  if (first === '') {
    if (last === '') return undefined;
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? 'unsatisfiable' : { start: sizeBytes - length, end: sizeBytes };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= sizeBytes) return 'unsatisfiable';
  return { start, end: last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes) };
}

/**
 * Returns the Content-Range of a range in a body of `sizeBytes` (RFC 9110, 14.4), whose end is
 * inclusive.
 */
export function contentRange(range: ByteRange, sizeBytes: number): string {
  return `bytes ${range.start}-${range.end - 1}/${sizeBytes}`;
}
