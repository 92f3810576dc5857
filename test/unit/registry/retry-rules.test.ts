import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Digest } from '../../../src/format/digest.js';
import { PullError } from '../../../src/format/error.js';
import type { RequestedRange } from '../../../src/registry/range-response.js';
import {
  type BrokenRequest,
  type Decision,
  decide,
  decideAfterBreak,
  type RequestHistory,
  type SentRequest,
} from '../../../src/registry/retry-rules.js';

const DIGEST = `sha256:${'ab'.repeat(32)}` as Digest;
const BLOB_URL = `https://reg.example/v2/a/blobs/${DIGEST}`;
const REGISTRY = new URL(BLOB_URL);
const STORAGE = new URL('https://store.example/b?sig=secret');
const BLOB = { url: BLOB_URL, digest: DIGEST, sizeBytes: 1000 };
const RANGE: RequestedRange = {
  blob: BLOB,
  start: 100,
  end: 300,
  isSizeUnknown: false,
  hasHeader: true,
  isPart: false,
};
const GET: SentRequest = { method: 'GET', origin: 'https://reg.example', redirects: 0 };
const KNOWN: RequestHistory = {
  waits: 0,
  renewals: 0,
  contradictions: 0,
  givesRanges: false,
  nowMs: 0,
  random: 0.5,
};

interface Row {
  readonly status: number;
  readonly url?: URL;
  readonly headers?: Record<string, string>;
  readonly request?: Partial<SentRequest>;
  readonly history?: Partial<RequestHistory>;
}

function decided({ status, url = REGISTRY, headers = {}, request = {}, history = {} }: Row): Decision {
  return decide({ url, status, headers }, { ...GET, ...request }, { ...KNOWN, ...history });
}

/** A decision as one line, with its reason; errors by their code. */
function line(decision: Decision): string {
  const code = decision.action === 'give-up' ? decision.error?.code : undefined;
  const why = decision.retryReason ?? (code === undefined ? decision.failureReason : code);
  return (why === undefined ? decision.action : `${decision.action}: ${why}`).replaceAll(DIGEST, 'DIGEST');
}

const ranged = { range: RANGE };
const stored = { url: STORAGE, history: { target: STORAGE }, request: ranged };

const ROWS: readonly (readonly [string, Row])[] = [
  ['redirect', { status: 307, headers: { location: 'https://store.example/b' } }],
  ['redirect', { status: 302, headers: { location: '/elsewhere' }, request: { redirects: 4 } }],
  ['give-up: redirect-refused', { status: 302, headers: { location: '/' }, request: { redirects: 5 } }],
  ['give-up: redirect-refused', { status: 307, headers: { location: 'http://store.example/' } }],
  ['give-up: answer-unexpected', { status: 307 }],
  ['give-up: redirect-refused', { status: 308, headers: { location: '/' }, request: { method: 'POST' } }],
  ['wait: reg.example asks to wait 2.0 s', { status: 429, headers: { 'retry-after': '2' } }],
  ['wait: reg.example asks to wait 0.5 s', { status: 429 }],
  ['wait: reg.example asks to wait 2.0 s', { status: 429, history: { waits: 2 } }],
  ['give-up', { status: 429, history: { waits: 4 } }],
  ['give-up', { status: 429, headers: { 'retry-after': 'soon' }, history: { waits: 4 } }],
  ['wait: reg.example asks to wait 8.0 s', { status: 429, request: ranged, history: { waits: 4 } }],
  ['wait: store.example asks to wait 7.0 s', { ...stored, status: 503, headers: { 'retry-after': '7' } }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 400 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 401 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 403 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 410 }],
  ['retry: reg.example answers 503', { status: 503 }],
  ['retry: store.example answers 500', { ...stored, status: 500 }],
  ['retry: reg.example answers 408', { status: 408 }],
  ['give-up', { status: 501, request: { method: 'HEAD' } }],
  ['give-up', { status: 429, headers: { 'retry-after': '2' }, request: { method: 'HEAD' } }],
  ['renew-token: reg.example requires a new token', { status: 401 }],
  ['renew-token: reg.example requires a new token', { status: 401, history: { renewals: 2 } }],
  ['give-up', { status: 401, history: { renewals: 3 } }],
  ['give-up', { status: 401, request: { origin: undefined } }],
  ['give-up', { status: 401, url: STORAGE, request: ranged }],
  ['give-up', { status: 403, request: ranged }],
  ['give-up', { ...stored, status: 404 }],
  ['give-up', { status: 304 }],
  ['accept', { status: 200 }],
  ['accept', { status: 204, request: { method: 'HEAD' } }],
];

test('every decision about a response; reasons have no query and none of the server’s text', () => {
  for (const [expected, row] of ROWS) assert.equal(line(decided(row)), expected, JSON.stringify(row));
});

test('a wait that is too long is logged as a failure', () => {
  const decision = decided({ status: 429, headers: { 'retry-after': '121' } });
  assert.deepEqual(decision, {
    action: 'wait',
    waitMs: 121_000,
    failureReason: 'reg.example asks to wait 121.0 s',
  });
});

const part = (range: string, more: Record<string, string> = {}): Row => ({
  status: 206,
  headers: { 'content-range': range, ...more },
  request: ranged,
});
const whole = (headers: Record<string, string>): Row => ({ status: 200, headers, request: ranged });
const unknown = {
  range: { ...RANGE, start: 0, end: 1, blob: { ...BLOB, sizeBytes: 0 }, isSizeUnknown: true },
};

const PAGE = { 'content-length': '700', 'content-type': 'text/html; charset=utf-8' };
const wrongSize = (what: string) =>
  `retry: blob DIGEST has ${what} at reg.example where its manifest says 1000`;

const BODIES: readonly (readonly [string, Row])[] = [
  ['skip 0, take 200, exact', part('bytes 100-299/1000', { 'content-length': '200' })],
  ['skip 0, take 200, exact', part('bytes 100-299/*', { 'content-encoding': 'identity' })],
  ['skip 100, take 200', whole({ 'content-length': '1000' })],
  ['skip 100, take 200', whole({})],
  ['skip 100, take 900, exact', { ...whole({}), request: { range: { ...RANGE, end: 1000 } } }],
  ['skip 0, take 199, exact', part('bytes 100-298/1000', { 'content-length': '199' })],
  ['skip 0, take 1, exact', part('bytes 100-100/*')],
  ['skip 0, take 200', part('bytes 100-399/1000', { 'content-length': '300' })],
  [
    'retry: reg.example answers for bytes 100 to 300 of DIGEST with bytes 101 to 300',
    part('bytes 101-299/1000'),
  ],
  [
    'retry: reg.example answers for bytes 100 to 300 of DIGEST with bytes 95 to 295',
    part('bytes 95-294/1000'),
  ],
  [
    'retry: reg.example answers for bytes 100 to 300 of DIGEST with 220 bytes as bytes 100 to 300',
    part('bytes 100-299/1000', { 'content-length': '220' }),
  ],
  [
    'retry: reg.example answers for bytes 100 to 300 of DIGEST with a part it does not name',
    part('bytes nonsense'),
  ],
  [
    'retry: reg.example answers for bytes 100 to 300 of DIGEST with a part it does not name',
    { status: 206, request: ranged },
  ],
  ['give-up: answer-unexpected', { ...part('bytes 101-299/1000'), history: { contradictions: 2 } }],
  [
    'skip 0, take 200, exact',
    part('bytes 100-299/1000', { 'content-encoding': 'gzip', 'content-length': '200' }),
  ],
  ['give-up: answer-unexpected', part('bytes 100-299/1000', { 'content-encoding': 'gzip' })],
  ['give-up: answer-unexpected', part('', { 'content-encoding': 'gzip' })],
  ['skip 100, take 200', whole({ 'content-length': '1000', 'content-encoding': 'aws-chunked,gzip' })],
  ['skip 100, take 200', whole({ 'content-encoding': '' })],
  ['give-up: answer-unexpected', whole({ 'content-encoding': 'x-gzip' })],
  ['give-up: answer-unexpected', whole({ 'content-length': '700', 'content-encoding': 'br' })],
  ['retry: reg.example answers for bytes 100 to 300 of DIGEST with a web page', whole(PAGE)],
  ['give-up: answer-unexpected', { ...whole(PAGE), history: { contradictions: 2 } }],
  ['give-up: metadata-malformed', part('bytes 100-299/1001')],
  [wrongSize('999 bytes'), whole({ 'content-length': '999' })],
  [wrongSize('0 bytes'), whole({ 'content-length': '0' })],
  [wrongSize('no valid length'), whole({ 'content-length': 'many' })],
  [
    'give-up: metadata-malformed',
    { status: 416, headers: { 'content-range': 'bytes */77' }, request: ranged },
  ],
  ['give-up: metadata-malformed', { ...whole({ 'content-length': '999' }), history: { contradictions: 2 } }],
  ['omit-range: reg.example answers 416 to a range', { status: 416, request: ranged }],
  [
    'omit-range: reg.example answers 416 to a range',
    { status: 416, headers: { 'content-range': 'bytes */1000' }, request: ranged },
  ],
  ['omit-range: reg.example answers 400 to a range', { status: 400, request: ranged }],
  ['omit-range: store.example answers 501 to a range', { ...stored, status: 501 }],
  ['give-up: unsupported', { status: 501, request: { range: { ...RANGE, isPart: true } } }],
  [
    'retry: reg.example answers 416 to a range',
    { status: 416, request: ranged, history: { givesRanges: true } },
  ],
  [
    'retry: reg.example answers 501 to a range',
    { status: 501, request: { range: { ...RANGE, isPart: true } }, history: { givesRanges: true } },
  ],
  [
    'give-up: metadata-malformed',
    {
      status: 416,
      headers: { 'content-range': 'bytes */77' },
      request: ranged,
      history: { givesRanges: true },
    },
  ],
  ['give-up: unsupported', { status: 200, request: { range: { ...RANGE, isPart: true } } }],
  ['give-up', { status: 416, request: { range: { ...RANGE, hasHeader: false } } }],
  ['retry: reg.example answers 501', { status: 501, request: { range: { ...RANGE, hasHeader: false } } }],
  ['skip 100, take 200', { status: 200, request: { range: { ...RANGE, hasHeader: false } } }],
  ['skip 0, take 1, exact, of 77', { ...part('bytes 0-0/77'), request: unknown }],
  ['give-up: answer-unexpected', { ...part('bytes 0-0/*'), request: unknown }],
  [
    'retry: blob DIGEST has 0 bytes at reg.example where its manifest states no size',
    { ...whole({ 'content-length': '0' }), request: unknown },
  ],
];

test('every decision about the body of a range', () => {
  for (const [expected, row] of BODIES) {
    const decision = decided(row);
    if (decision.action !== 'accept') {
      assert.equal(line(decision), expected, JSON.stringify(row));
      continue;
    }
    const { skipBytes, lengthBytes, isExact } = decision.window;
    const size = expected.includes('of') ? `, of ${decision.sizeBytes}` : '';
    assert.equal(`skip ${skipBytes}, take ${lengthBytes}${isExact ? ', exact' : ''}${size}`, expected);
  }
});

const BROKEN: BrokenRequest = {
  error: Object.assign(new Error('secret'), { code: 'ECONNRESET' }),
  host: 'reg.example',
  unanswered: false,
  resent: false,
  fruitless: 0,
  contradictions: 0,
};

test('every decision about a request that broke off', () => {
  const tooLong = new PullError('answer-unexpected', 'too long');
  const refused = new PullError('option-malformed', 'no ca.crt');
  for (const [expected, more] of [
    ['retry: reg.example broke off the connection', {}],
    ['resend: reg.example broke off the connection', { unanswered: true }],
    ['retry: reg.example broke off the connection', { unanswered: true, resent: true }],
    ['retry: reg.example broke off the connection', { fruitless: 4 }],
    ['give-up: reg.example broke off the connection', { fruitless: 5 }],
    ['give-up: network-hopeless', { error: Object.assign(new Error(), { code: 'CERT_HAS_EXPIRED' }) }],
    ['give-up: option-malformed', { error: refused }],
    ['retry: too long', { error: tooLong, contradictions: 1 }],
    ['give-up: answer-unexpected', { error: tooLong, contradictions: 2 }],
  ] as const) {
    assert.equal(line(decideAfterBreak({ ...BROKEN, ...more })), expected, JSON.stringify(more));
  }
});
