/** What servers answer and programs print. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { runCredentialHelper } from '../../../src/registry/auth-file.js';
import { bookWait, createWaitBudget, waitAfter } from '../../../src/registry/backoff.js';
import {
  parseChallenges,
  parseContentLength,
  parseContentRange,
  parseRetryAfter,
  rangeHeader,
} from '../../../src/registry/headers.js';
import { decodeResponse } from '../../../src/registry/http-client.js';
import { firstErrorMessage, refusal, webPageError } from '../../../src/registry/refusal.js';
import { parseToken, tokenRequest, tokenUrl } from '../../../src/registry/token.js';
import { nextHop } from '../../../src/registry/transport.js';
import { contentRange, parseRange } from '../../../src/sandbox/answers.js';
import { parseFaults } from '../../../src/sandbox/faults.js';
import { mutatedJson } from '../json.js';
import { EDGE_NUMBERS, mutated, mutatedText } from '../mutate.js';
import { scratchDirectory } from '../scratch.js';
import { type Target, target, tolerate, tolerateAsync } from '../target.js';

const REGISTRY = new URL('https://registry.example:5000');
const NOW_MS = 1_700_000_000_000;

const CHALLENGES = [
  'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"',
  'Basic realm="x", Bearer realm="https://a/b\\"c", error="insufficient_scope"',
  'Negotiate dGVzdA==, Digest nonce=abc, Basic',
  'Bearer realm=http://auth.example/token',
];

const challenge = target(
  'challenge',
  fc.array(mutatedText(CHALLENGES, ['realm=', '"', '\\', '==', ', ']), { maxLength: 3 }),
  (headers) => {
    const challenges = parseChallenges(headers);
    assert.ok(challenges.length <= 16);
    for (const { scheme } of challenges) assert.match(scheme, /^[!#$%&'*+.^_`|~0-9a-z-]+$/);
    const url = tolerate(
      () => tokenUrl(challenges, REGISTRY, 'a/b'),
      'answer-unexpected',
      'redirect-refused',
    );
    if (url === undefined) return;
    assert.ok(url.protocol === 'https:' || /^(localhost|127\.|\[::1\])/.test(url.hostname));
    assert.deepEqual(url.searchParams.getAll('scope'), ['repository:a/b:pull']);
    assert.equal(url.username + url.password + url.hash, '');
    for (const secret of [
      undefined,
      { kind: 'password', username: 'ü', password: ':' } as const,
      { kind: 'identity-token', token: '&=' } as const,
    ]) {
      tokenRequest(url, secret);
    }
  },
);

const TOKENS = [
  { token: 'abc.def-ghi', access_token: 'x', expires_in: 300, issued_at: '2024-01-01T00:00:00Z' },
];

const token = target('token', mutatedJson(TOKENS, ['token', 'expires_in', 'a b', 'ü']), (body) => {
  const parsed = tolerate(() => parseToken(body, 'auth.example', NOW_MS), 'answer-unexpected');
  if (parsed === undefined) return;
  assert.match(parsed.value, /^Bearer [\x21-\x7e]+$/);
  const lifeMs = parsed.expiresAtMs - NOW_MS;
  assert.ok(lifeMs > 0 && lifeMs <= 24 * 3600 * 1000, String(lifeMs));
});

const contentRanges = target(
  'content-range',
  fc.tuple(
    mutatedText(['bytes 0-9/100', 'bytes */100', 'bytes 5-5/*', ...EDGE_NUMBERS], ['bytes ', '-', '/', '*']),
    fc.nat(2 ** 20),
    fc.integer({ min: 1, max: 2 ** 20 }),
  ),
  ([header, start, length]) => {
    const parsed = parseContentRange(header);
    if (parsed?.range !== undefined) {
      const { range, sizeBytes = Number.MAX_SAFE_INTEGER } = parsed;
      assert.ok(0 <= range.start && range.start < range.end && range.end <= sizeBytes);
    }
    const size = parseContentLength(header);
    assert.ok(size === undefined || Number.isNaN(size) || (Number.isSafeInteger(size) && size >= 0));
    const sizeBytes = start + length;
    const range = { start, end: sizeBytes };
    assert.deepEqual(parseContentRange(contentRange(range, sizeBytes)), { range, sizeBytes });
    assert.deepEqual(parseRange(rangeHeader(start, sizeBytes), sizeBytes), range);
    const asked = parseRange(header, sizeBytes);
    if (typeof asked === 'object')
      assert.ok(0 <= asked.start && asked.start < asked.end && asked.end <= sizeBytes);
  },
);

const retryAfter = target(
  'retry-after',
  fc.tuple(
    mutatedText([
      '120',
      '0',
      'Wed, 21 Oct 2015 07:28:00 GMT',
      'Sun, 06 Nov 2094 08:49:37 GMT',
      ...EDGE_NUMBERS,
    ]),
    fc.constantFrom(429, 503, 200),
    fc.integer({ min: 1, max: 2000 }),
    fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  ),
  ([header, status, nth, random]) => {
    const askedMs = parseRetryAfter(header, NOW_MS);
    assert.ok(askedMs === undefined || (Number.isSafeInteger(askedMs) && askedMs >= 1000));
    const waitMs = waitAfter({ status, retryAfter: header }, nth, NOW_MS, random);
    if (waitMs === undefined) return;
    assert.ok(Number.isSafeInteger(waitMs) && waitMs >= 0);
    const budget = createWaitBudget();
    for (let times = 0; times < 20; times++) {
      tolerate(
        () => bookWait(budget, { host: 'registry.example', waitMs }, NOW_MS + times),
        'network-hopeless',
      );
    }
  },
);

const redirect = target(
  'redirect',
  fc.tuple(
    mutatedText(
      ['https://cdn.example/a?b=c#d', '/v2/x', '../y', '//host/z', 'http://127.0.0.1:1/', 'https://u:p@h/'],
      ['javascript:', 'file:', '@', '[', '%00', '\\'],
    ),
    fc.integer({ min: 1, max: 6 }),
  ),
  ([location, hop]) => {
    const to = tolerate(() => nextHop(REGISTRY, location, hop), 'redirect-refused', 'answer-unexpected');
    if (to === undefined) return;
    assert.ok(to.protocol === 'https:' && hop < 6 && to.hostname !== '');
    assert.equal(to.username + to.password + to.hash, '');
  },
);

const WANTED = { host: 'registry.example', repository: 'a/b', name: 'c' };

const ERRORS = [
  { errors: [{ code: 'DENIED', message: 'no https://u:p@h/x?sig=1 Bearer abc\u001b[2J', detail: {} }] },
];

const errorBody = target(
  'error-body',
  fc.tuple(mutatedJson(ERRORS, ['\u202e', 'message']), fc.integer({ min: 300, max: 599 })),
  ([body, status]) => {
    const message = firstErrorMessage(body);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    if (message !== undefined) assert.doesNotMatch(message, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    assert.ok((message?.length ?? 0) < 2000);
    for (const kind of ['manifest', 'blob'] as const) {
      refusal(status, { ...WANTED, kind }, body);
    }
  },
);

const PAGES = [
  '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no &amp; https://u:p@h/x?sig=1</Message></Error>',
  '\ufeff <!DOCTYPE html><html><head><title>Sign in\u001b[2J</title></head></html>',
];

const errorPage = target(
  'error-page',
  mutatedText(PAGES, ['<title>', '</Code>', '&quot;', '\u202e', '<Message>']),
  (page) => {
    const message = firstErrorMessage(Buffer.from(page));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    if (message !== undefined) assert.doesNotMatch(message, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    assert.ok((message?.length ?? 0) < 2000);
    webPageError('registry.example', 'the manifest v1', Buffer.from(page));
  },
);

const MAX_DECODED_BYTES = 10_000;

const codedAnswer = target(
  'coded-answer',
  fc.tuple(
    mutated([gzipSync('{"token":"x"}'), gzipSync(Buffer.alloc(50_000))]),
    mutatedText(['gzip', 'x-gzip', 'aws-chunked, gzip', 'br'], ['gzip', ',', ' ']),
  ),
  async ([body, encoding]) => {
    const answer = { status: 200, headers: { 'content-encoding': encoding }, body, tooLong: false };
    const decoded = await tolerateAsync(
      () => decodeResponse(answer, 'registry.example', MAX_DECODED_BYTES),
      'answer-unexpected',
    );
    if (decoded !== undefined && decoded.body !== body) assert.ok(decoded.body.length <= MAX_DECODED_BYTES);
  },
);

const directory = scratchDirectory('answers');
const ANSWER = join(directory, 'answer');
const HELPER = join(directory, 'docker-credential-fuzz');
writeFileSync(HELPER, `#!/bin/sh\ncat '${ANSWER}'\n`);
chmodSync(HELPER, 0o755);
process.env['PATH'] = `${directory}${delimiter}${process.env['PATH'] ?? ''}`;

const HELPER_ANSWERS = [
  { ServerURL: 'https://registry.example', Username: 'user', Secret: 'secret' },
  { ServerURL: '', Username: '<token>', Secret: 'x' },
];

/** Starts a program for each input, and so is the slowest by far: the answer is tried in one of 16 cases. */
const helper = target(
  'credential-helper',
  fc.tuple(mutatedJson(HELPER_ANSWERS, ['Username', 'Secret']), fc.nat(15)),
  async ([answer, luck]) => {
    if (luck !== 0) return;
    writeFileSync(ANSWER, answer);
    const { signal } = new AbortController();
    const secret = await tolerateAsync(
      () => runCredentialHelper({ name: 'fuzz', server: 'x', signal }),
      'unauthorized',
    );
    if (typeof secret === 'object' && secret.kind === 'password') assert.notEqual(secret.username, '');
  },
);

/** As text, since an object with a field of that name is taken for a promise. */
const FAULTS: readonly unknown[] = [
  `[{"match":{"path":"/v2/","method":"GET","range":"0-99","nth":[1,2]},
     "then":{"status":503,"headers":{"Retry-After":"1"},"body":"x"}}]`,
  '[{"then":{"drip":{"bytesPerSecond":10,"closeAfterBytes":5}}},{"then":{"redirect":{"expiresAfterMs":5}}}]',
  '[{"then":{"retryAfter":{"status":429,"seconds":1}}},{"then":{"wrongContentRange":"bytes 0-9/100"}}]',
  '[{"then":{"challenge":{"always":true}}},{"then":{"ignoreRange":true}},{"then":{"flipByteAt":3}}]',
].map((text) => JSON.parse(text));

const faults = target(
  'fault-file',
  mutatedJson(FAULTS, ['then', 'match', 'nth', 'path', '(', 'a\r\nb']),
  (bytes) => {
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString());
    } catch {
      return;
    }
    tolerate(() => parseFaults(value), 'option-malformed');
  },
);

export const ANSWER_TARGETS: readonly Target[] = [
  challenge,
  token,
  contentRanges,
  retryAfter,
  redirect,
  errorBody,
  errorPage,
  codedAnswer,
  helper,
  faults,
];
