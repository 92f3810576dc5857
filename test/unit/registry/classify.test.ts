import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import {
  type Asked,
  type AskedRange,
  type Break,
  classify,
  classifyBreak,
  type Known,
  type Next,
} from '../../../src/registry/classify.js';

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const BLOB_URL = `https://reg.example/v2/a/blobs/${DIGEST}`;
const REGISTRY = new URL(BLOB_URL);
const STORAGE = new URL('https://store.example/b?sig=secret');
const BLOB = { url: BLOB_URL, digest: DIGEST, sizeBytes: 1000 };
const RANGE: AskedRange = {
  blob: BLOB,
  start: 100,
  end: 300,
  sizeUnknown: false,
  ranged: true,
  isPart: false,
};
const GET: Asked = { method: 'GET', origin: 'https://reg.example', hops: 0 };
const KNOWN: Known = { waited: 0, renewals: 0, contradictions: 0, givesRanges: false, nowMs: 0, random: 0.5 };

interface Row {
  readonly status: number;
  readonly url?: URL;
  readonly headers?: Record<string, string>;
  readonly asked?: Partial<Asked>;
  readonly known?: Partial<Known>;
}

function classified({ status, url = REGISTRY, headers = {}, asked = {}, known = {} }: Row): Next {
  return classify({ url, status, headers }, { ...GET, ...asked }, { ...KNOWN, ...known });
}

/** As one line: what is next, and why; errors by their code. */
function line(next: Next): string {
  const code = next.next === 'give-up' ? next.error?.code : undefined;
  const why = next.again ?? (code === undefined ? next.givenUp : code);
  return (why === undefined ? next.next : `${next.next}: ${why}`).replaceAll(DIGEST, 'DIGEST');
}

const ranged = { range: RANGE };
const stored = { url: STORAGE, known: { target: STORAGE }, asked: ranged };

const ROWS: readonly (readonly [string, Row])[] = [
  ['redirect', { status: 307, headers: { location: 'https://store.example/b' } }],
  ['redirect', { status: 302, headers: { location: '/elsewhere' }, asked: { hops: 4 } }],
  ['give-up: redirect-refused', { status: 302, headers: { location: '/' }, asked: { hops: 5 } }],
  ['give-up: redirect-refused', { status: 307, headers: { location: 'http://store.example/' } }],
  ['give-up: answer-unexpected', { status: 307 }],
  ['give-up: redirect-refused', { status: 308, headers: { location: '/' }, asked: { method: 'POST' } }],
  ['wait: reg.example asks to wait 2.0 s', { status: 429, headers: { 'retry-after': '2' } }],
  ['wait: reg.example asks to wait 0.5 s', { status: 429 }],
  ['wait: reg.example asks to wait 2.0 s', { status: 429, known: { waited: 2 } }],
  ['give-up', { status: 429, known: { waited: 4 } }],
  ['give-up', { status: 429, headers: { 'retry-after': 'soon' }, known: { waited: 4 } }],
  ['wait: reg.example asks to wait 8.0 s', { status: 429, asked: ranged, known: { waited: 4 } }],
  ['wait: store.example asks to wait 7.0 s', { ...stored, status: 503, headers: { 'retry-after': '7' } }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 400 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 401 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 403 }],
  ['renew-target: the target of a redirect has expired', { ...stored, status: 410 }],
  ['fail: reg.example answers 503', { status: 503 }],
  ['fail: store.example answers 500', { ...stored, status: 500 }],
  ['fail: reg.example answers 408', { status: 408 }],
  ['give-up', { status: 501, asked: { method: 'HEAD' } }],
  ['give-up', { status: 429, headers: { 'retry-after': '2' }, asked: { method: 'HEAD' } }],
  ['renew-token: reg.example wants a new token', { status: 401 }],
  ['renew-token: reg.example wants a new token', { status: 401, known: { renewals: 2 } }],
  ['give-up', { status: 401, known: { renewals: 3 } }],
  ['give-up', { status: 401, asked: { origin: undefined } }],
  ['give-up', { status: 401, url: STORAGE, asked: ranged }],
  ['give-up', { status: 403, asked: ranged }],
  ['give-up', { ...stored, status: 404 }],
  ['give-up', { status: 304 }],
  ['take', { status: 200 }],
  ['take', { status: 204, asked: { method: 'HEAD' } }],
];

test('every rule for a response, and why; the reason has no query and none of the server’s words', () => {
  for (const [expected, row] of ROWS) assert.equal(line(classified(row)), expected, JSON.stringify(row));
});

test('a wait that is too long is not said to be followed by anything', () => {
  const next = classified({ status: 429, headers: { 'retry-after': '121' } });
  assert.deepEqual(next, { next: 'wait', waitMs: 121_000, givenUp: 'reg.example asks to wait 121.0 s' });
});

const part = (range: string, more: Record<string, string> = {}): Row => ({
  status: 206,
  headers: { 'content-range': range, ...more },
  asked: ranged,
});
const whole = (headers: Record<string, string>): Row => ({ status: 200, headers, asked: ranged });
const unknown = { range: { ...RANGE, start: 0, end: 1, blob: { ...BLOB, sizeBytes: 0 }, sizeUnknown: true } };

const PAGE = { 'content-length': '700', 'content-type': 'text/html; charset=utf-8' };
const wrongSize = (what: string) =>
  `fail: blob DIGEST has ${what} at reg.example where its manifest says 1000`;

const BODIES: readonly (readonly [string, Row])[] = [
  ['skip 0, take 200, exact', part('bytes 100-299/1000', { 'content-length': '200' })],
  ['skip 0, take 200, exact', part('bytes 100-299/*', { 'content-encoding': 'identity' })],
  ['skip 100, take 200', whole({ 'content-length': '1000' })],
  ['skip 100, take 200', whole({})],
  ['skip 100, take 900, exact', { ...whole({}), asked: { range: { ...RANGE, end: 1000 } } }],
  ['skip 0, take 199, exact', part('bytes 100-298/1000', { 'content-length': '199' })],
  ['skip 0, take 1, exact', part('bytes 100-100/*')],
  ['skip 0, take 200', part('bytes 100-399/1000', { 'content-length': '300' })],
  [
    'fail: reg.example answers for bytes 100 to 300 of DIGEST with bytes 101 to 300',
    part('bytes 101-299/1000'),
  ],
  [
    'fail: reg.example answers for bytes 100 to 300 of DIGEST with bytes 95 to 295',
    part('bytes 95-294/1000'),
  ],
  [
    'fail: reg.example answers for bytes 100 to 300 of DIGEST with 220 bytes as bytes 100 to 300',
    part('bytes 100-299/1000', { 'content-length': '220' }),
  ],
  [
    'fail: reg.example answers for bytes 100 to 300 of DIGEST with a part it does not name',
    part('bytes nonsense'),
  ],
  [
    'fail: reg.example answers for bytes 100 to 300 of DIGEST with a part it does not name',
    { status: 206, asked: ranged },
  ],
  ['give-up: answer-unexpected', { ...part('bytes 101-299/1000'), known: { contradictions: 2 } }],
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
  ['fail: reg.example answers for bytes 100 to 300 of DIGEST with a web page', whole(PAGE)],
  ['give-up: answer-unexpected', { ...whole(PAGE), known: { contradictions: 2 } }],
  ['give-up: metadata-malformed', part('bytes 100-299/1001')],
  [wrongSize('999 bytes'), whole({ 'content-length': '999' })],
  [wrongSize('0 bytes'), whole({ 'content-length': '0' })],
  [wrongSize('no valid length'), whole({ 'content-length': 'many' })],
  ['give-up: metadata-malformed', { status: 416, headers: { 'content-range': 'bytes */77' }, asked: ranged }],
  ['give-up: metadata-malformed', { ...whole({ 'content-length': '999' }), known: { contradictions: 2 } }],
  ['ask-whole: reg.example answers 416 to a range', { status: 416, asked: ranged }],
  [
    'ask-whole: reg.example answers 416 to a range',
    { status: 416, headers: { 'content-range': 'bytes */1000' }, asked: ranged },
  ],
  ['ask-whole: reg.example answers 400 to a range', { status: 400, asked: ranged }],
  ['ask-whole: store.example answers 501 to a range', { ...stored, status: 501 }],
  ['give-up: unsupported', { status: 501, asked: { range: { ...RANGE, isPart: true } } }],
  ['fail: reg.example answers 416 to a range', { status: 416, asked: ranged, known: { givesRanges: true } }],
  [
    'fail: reg.example answers 501 to a range',
    { status: 501, asked: { range: { ...RANGE, isPart: true } }, known: { givesRanges: true } },
  ],
  [
    'give-up: metadata-malformed',
    { status: 416, headers: { 'content-range': 'bytes */77' }, asked: ranged, known: { givesRanges: true } },
  ],
  ['give-up: unsupported', { status: 200, asked: { range: { ...RANGE, isPart: true } } }],
  ['give-up', { status: 416, asked: { range: { ...RANGE, ranged: false } } }],
  ['fail: reg.example answers 501', { status: 501, asked: { range: { ...RANGE, ranged: false } } }],
  ['skip 100, take 200', { status: 200, asked: { range: { ...RANGE, ranged: false } } }],
  ['skip 0, take 1, exact, of 77', { ...part('bytes 0-0/77'), asked: unknown }],
  ['give-up: answer-unexpected', { ...part('bytes 0-0/*'), asked: unknown }],
  [
    'fail: blob DIGEST has 0 bytes at reg.example where its manifest states no size',
    { ...whole({ 'content-length': '0' }), asked: unknown },
  ],
];

test('every rule for the body of a range', () => {
  for (const [expected, row] of BODIES) {
    const next = classified(row);
    if (next.next !== 'take') {
      assert.equal(line(next), expected, JSON.stringify(row));
      continue;
    }
    const { skipBytes, takeBytes, exact } = next.plan;
    const size = expected.includes('of') ? `, of ${next.sizeBytes}` : '';
    assert.equal(`skip ${skipBytes}, take ${takeBytes}${exact ? ', exact' : ''}${size}`, expected);
  }
});

const BROKEN: Break = {
  error: Object.assign(new Error('secret'), { code: 'ECONNRESET' }),
  host: 'reg.example',
  unanswered: false,
  repeated: false,
  fruitless: 0,
  contradictions: 0,
};

test('every rule for a request that broke off', () => {
  const tooLong = new PullError('answer-unexpected', 'too long');
  const refused = new PullError('option-malformed', 'no ca.crt');
  for (const [expected, more] of [
    ['fail: reg.example broke off the connection', {}],
    ['repeat: reg.example broke off the connection', { unanswered: true }],
    ['fail: reg.example broke off the connection', { unanswered: true, repeated: true }],
    ['fail: reg.example broke off the connection', { fruitless: 4 }],
    ['give-up: reg.example broke off the connection', { fruitless: 5 }],
    ['give-up: network-hopeless', { error: Object.assign(new Error(), { code: 'CERT_HAS_EXPIRED' }) }],
    ['give-up: option-malformed', { error: refused }],
    ['fail: too long', { error: tooLong, contradictions: 1 }],
    ['give-up: answer-unexpected', { error: tooLong, contradictions: 2 }],
  ] as const) {
    assert.equal(line(classifyBreak({ ...BROKEN, ...more })), expected, JSON.stringify(more));
  }
});
