/** What ends a blob: one answer of its registry a row, which is given to every request for it. Elsewhere: each status (unit/registry/retry-rules). */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CopyOptions } from '../../src/api/copy.js';
import type { FaultAction } from '../../src/sandbox/faults.js';
import { asksFor, blobsImage, copyBlobs } from '../support/blobs.js';
import { NEEDS_OPENSSL } from '../support/certificate.js';
import { startSandbox } from '../support/sandbox.js';
import { tlsFront } from '../support/tls-front.js';

interface Row {
  readonly answer: FaultAction;
  readonly code: string;
  /** In the message and the hint, a line each. */
  readonly says: RegExp;
  readonly requests: number;
  readonly options?: Partial<CopyOptions>;
  /** In the last line about the blob. */
  readonly line?: RegExp;
}

const GONE = '{"errors":[{"code":"BLOB_UNKNOWN","message":"gone\\u001b[31m"}]}';
const CUT = { Connection: 'close', 'Content-Length': '1000' };

const ROWS: Readonly<Record<string, Row>> = {
  'is not there, as a body says that breaks off': {
    answer: { status: 404, headers: CUT, body: GONE },
    code: 'blob-not-found',
    says: /has no blob sha256:[0-9a-f]+ in x; it says "gone\\u001b\[31m"$/m,
    requests: 1,
  },
  'comes as another range, three times': {
    answer: { wrongContentRange: 'bytes 5-9/6656' },
    code: 'answer-unexpected',
    says: /answers for bytes 0 to 6656 of sha256/,
    requests: 3,
    line: /: 206, 0 bytes, \d+ ms; given up, as .* answers for bytes 0 to 6656/,
  },
  'is redirected a sixth time': {
    answer: { status: 302, headers: { Location: '?sig=secret' } },
    code: 'redirect-refused',
    says: /more than 5 times/,
    requests: 6,
  },
  'is to be waited for longer than two minutes': {
    answer: { retryAfter: { status: 503, seconds: 121 } },
    code: 'network-hopeless',
    says: /wait too long/,
    requests: 1,
  },
  'is not answered for': {
    answer: { stallAfterBytes: 0 },
    code: 'network-hopeless',
    says: /did not begin to answer in time\n.*--answer-timeout/,
    requests: 1,
    // What came before has long been forgotten by then.
    options: { answerTimeoutMs: 500, patienceMs: 5 },
  },
};

async function assertEnds(t: TestContext, { answer, code, says, requests, options, line }: Row) {
  const image = await blobsImage(t, 5000);
  const digest = image.digests[0]!;
  const faults = [{ match: { path: digest }, action: answer }];
  const registry = await startSandbox(t, { layout: image.layout, faults });
  const { error, lines } = await copyBlobs(t, image, registry.host, options);
  const told = `${error?.message}\n${error?.hint}`;
  assert.equal(error?.code, code, told);
  assert.match(told, says);
  assert.equal(asksFor(registry, digest).length, requests);
  if (line !== undefined) assert.match(lines.at(-1) ?? '', line);
  assert.doesNotMatch([told, ...lines].join(), /secret/);
}

test('a copy is given up when a blob', { concurrency: true }, async (t) => {
  const certificate = async (t: TestContext) => {
    const storage = await tlsFront(t, (await startSandbox(t)).host);
    const answer = { status: 307, headers: { Location: `https://${storage}/?sig=secret` } };
    const says = /certificate of .* is not trusted/;
    const line = /: no answer, 0 bytes, \d+ ms; given up, as .*certificate/;
    await assertEnds(t, { answer, code: 'network-hopeless', says, requests: 1, line });
  };
  await Promise.all([
    ...Object.entries(ROWS).map(([what, row]) => t.test(what, (t) => assertEnds(t, row))),
    t.test('lies behind a certificate that is not trusted', NEEDS_OPENSSL, certificate),
  ]);
});
