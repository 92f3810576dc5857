import { type Answer, errorAnswer } from './answers.js';
import { bodySizeBytes } from './body.js';
import type { FaultAction } from './faults.js';

/** What goes over the wire for one request. */
export interface Transmission {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Answer['body'];
  /** Bytes [start, end) of the body are sent. */
  readonly start: number;
  readonly end: number;
  readonly flipByteAt: number | undefined;
  /** How fast this body comes at most. */
  readonly bytesPerSecond: number | undefined;
  /** What happens at `end` instead of a proper end; `silent`: without even the headers. */
  readonly cut: { readonly how: 'close' | 'stall'; readonly silent: boolean } | undefined;
  /** The range that was asked for and is in reach, whatever was done to the answer. */
  readonly asked: ByteRange | undefined;
}

/** `answer` narrowed to the range that a request asks for, then put through a fault. */
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
  const counts =
    answer.ranges &&
    request.method === 'GET' &&
    (request.ifRange === undefined || request.ifRange === answer.headers['ETag']);
  const asked = counts ? parseRange(request.range, sizeBytes) : undefined;
  if (asked === 'unsatisfiable') {
    const headers = { 'Content-Range': `bytes */${sizeBytes}` };
    return shapeAnswer(errorAnswer(416, 'RANGE_INVALID', 'no such bytes', headers), request, action);
  }
  const ranged = rangeGiven(action, asked);
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
    asked,
  };
}

function rangeGiven(action: FaultAction | undefined, asked: ByteRange | undefined): ByteRange | undefined {
  if (action === undefined || asked === undefined) return asked;
  if ('ignoreRange' in action) return undefined;
  return 'shortRange' in action
    ? { start: asked.start, end: Math.min(asked.end, asked.start + action.shortRange) }
    : asked;
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
  // A body that ends before the cut ends as it should.
  if (cut === undefined || (cut.bytes > 0 && start + cut.bytes >= end)) return { start, end, cut: undefined };
  return { start, end: start + cut.bytes, cut: { how: cut.how, silent: cut.bytes === 0 } };
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
 * What a Range header asks of a body of `sizeBytes`: bytes [start, end); `unsatisfiable`, which is a 416; or
 * `undefined` where a server must or may ignore the header: absent, malformed, or several ranges (RFC 9110, 14.2).
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

/** The Content-Range of `range` in a body of `sizeBytes` (RFC 9110, 14.4): the inclusive form. */
export function contentRange(range: ByteRange, sizeBytes: number): string {
  return `bytes ${range.start}-${range.end - 1}/${sizeBytes}`;
}
