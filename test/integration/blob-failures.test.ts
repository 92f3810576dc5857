/** What may happen to a blob's requests one by one before its bytes are there. Elsewhere: failures by the hundred (networks). */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { FaultAction } from '../../src/sandbox/faults.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { asksFor, blobsImage, copyBlobs, inTurn } from '../support/blobs.js';
import { startSandbox } from '../support/sandbox.js';
import { listen } from '../support/scripted-server.js';

const BYTES = 60_000;

const SHORT = { shortRange: 20_000 };
const REFUSED = { challenge: { always: true } };

interface Row {
  /** Answers to the requests for a blob, in turn; the next one is right. */
  readonly answers: readonly FaultAction[];
  /** Each request as the registry counted it: the status, 0 for none, and where its range began. */
  readonly asked: string;
  readonly misses?: string;
}

const ROWS: Readonly<Record<string, Row>> = {
  'a body that breaks off is continued at the first byte not received': {
    answers: [{ closeAfterBytes: 30_000 }],
    asked: '206@0 206@30000',
    misses: 'HOST broke off the connection',
  },
  'a server error is a miss': {
    answers: [{ status: 500 }],
    asked: '500 206@0',
    misses: 'HOST answers 500',
  },
  'a body that breaks off on a reused connection is a miss': {
    answers: [SHORT, { closeAfterBytes: 5 }],
    asked: '206@0 206@20000 206@20005',
    misses: 'HOST broke off the connection',
  },
  'no response in time on a reused connection is a miss': {
    answers: [SHORT, { stallAfterBytes: 0 }],
    asked: '206@0 0@20000 206@20000',
    misses: 'HOST did not begin to answer in time',
  },
  'a storage that accepts and does not speak TLS in time is a miss': {
    answers: [{ status: 307, headers: { Location: 'https://SILENT/' } }],
    asked: '307 206@0',
    misses: 'cannot connect to SILENT in time',
  },
  'three tokens in a row that are refused when they are new are no miss': {
    answers: [REFUSED, REFUSED, REFUSED],
    asked: '401 401 401 206@0',
  },
  'tokens that are refused now and then are no miss, however often': {
    answers: [REFUSED, SHORT, REFUSED, REFUSED, SHORT, REFUSED],
    asked: '401 206@0 401 401 206@20000 401 206@40000',
  },
};

/** As `Row.asked` has them. */
function told(asks: readonly RequestRecord[]): string {
  return asks.map(({ status, start }) => (start === null ? `${status}` : `${status}@${start}`)).join(' ');
}

async function assertRows(t: TestContext): Promise<void> {
  const silent = createServer();
  const silentHost = await listen(silent);
  t.after(() => silent.close());
  const rows = Object.entries(
    JSON.parse(JSON.stringify(ROWS).replaceAll('SILENT', silentHost)) as typeof ROWS,
  );
  const image = await blobsImage(t, ...rows.map(() => BYTES));
  const faults = rows.flatMap(([, { answers }], i) => inTurn(image.digests[i]!, ...answers));
  const registry = await startSandbox(t, { layout: image.layout, faults, requireToken: {} });
  // Each has a connection of its own, and goes on with it.
  const options = { connections: rows.length, answerTimeoutMs: 1500, connectTimeoutMs: 1500 };
  const { error, misses } = await copyBlobs(t, image, registry.host, options);
  assert.equal(error, undefined);
  for (const [i, [name, { asked }]] of rows.entries())
    assert.equal(told(asksFor(registry, image.digests[i]!)), asked, name);
  const wanted = rows.flatMap(([, row]) => row.misses?.replace('HOST', registry.host) ?? []);
  assert.deepEqual(misses.toSorted(), wanted.toSorted());
}

async function assertForgiven(t: TestContext): Promise<void> {
  const image = await blobsImage(t, BYTES);
  const dies = { closeAfterBytes: 0 };
  const faults = inTurn(image.digests[0]!, SHORT, dies, dies);
  const registry = await startSandbox(t, { layout: image.layout, faults });
  const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 1 });
  assert.equal(error, undefined);
  assert.equal(told(asksFor(registry, image.digests[0]!)), '206@0 0@20000 0@20000 206@20000');
  assert.deepEqual(misses, [`${registry.host} broke off the connection`]);
}

async function assertWholeGoesOn(t: TestContext): Promise<void> {
  const image = await blobsImage(t, 3 * 2 ** 20);
  const digest = image.digests[0]!;
  const faults = inTurn(digest, { ignoreRange: true, closeAfterBytes: 50_000 }, { ignoreRange: true });
  const registry = await startSandbox(t, { layout: image.layout, faults });
  const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 4 });
  assert.equal(error, undefined);
  assert.equal(told(asksFor(registry, digest)), '200@0 200@50000');
  assert.deepEqual(misses, [`${registry.host} broke off the connection`]);
}

async function assertBothAskWithout(t: TestContext): Promise<void> {
  const image = await blobsImage(t, 1000, 2000);
  const refuse = (path: string, firstByteAfterMs = 0) => {
    return { match: { path, range: 'any' }, action: { status: 416, firstByteAfterMs } };
  };
  // By the time that the second range is refused, the first blob has come without one.
  const faults = [refuse(image.digests[1]!, 300), refuse('/blobs/')];
  const registry = await startSandbox(t, { layout: image.layout, faults });
  const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 4 });
  assert.deepEqual([error, misses], [undefined, []]);
  for (const digest of image.digests) assert.equal(told(asksFor(registry, digest)), '416 200');
}

test('a blob is complete after failures of its requests', { concurrency: true }, async (t) => {
  await Promise.all([
    t.test('of each kind', assertRows),
    t.test('where a reused connection dies before a response, once without a miss', assertForgiven),
    t.test('where ranges are ignored and the first full response breaks off', assertWholeGoesOn),
    t.test('where two ranges are refused at the same time', assertBothAskWithout),
  ]);
});
