import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { FaultAction } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { asksFor, type BlobsImage, blobsImage, copyBlobs, inTurn } from '../support/blobs.js';
import { registryTable, useRegistriesConf } from '../support/environment.js';
import { startSandbox } from '../support/sandbox.js';

interface Row {
  readonly bytes: number;
  /** What the mirror says of the blob; undefined: it gives it. */
  readonly says?: FaultAction;
  /** Statuses that the mirror and the registry answered. */
  readonly statuses: readonly [mirror: string, registry: string];
}

/** In this order, by one connection: an endpoint at which a range seems to be under way when it is not would be full, and passed over. */
const ROWS: Readonly<Record<string, Row>> = {
  'a blob that the mirror has': { bytes: 1000, statuses: ['206', ''] },
  'one that it lacks': { bytes: 2000, says: { status: 404 }, statuses: ['404', '206'] },
  'one that it has again': { bytes: 3000, statuses: ['206', ''] },
  // Its whole answer is closed at its head, as the registry is known to give ranges by then.
  'one of which it serves no part': {
    bytes: 3 * 2 ** 20,
    says: { ignoreRange: true },
    statuses: ['200', '206 206 206 206'],
  },
  'one of which it serves another part, which is no miss': {
    bytes: 4000,
    says: { wrongContentRange: 'bytes 5-14/5632' },
    statuses: ['206', '206'],
  },
};

/** Statuses of the requests for a blob, 0 for no answer. */
function statusesOf(at: SandboxRegistry, digest: string): string {
  return asksFor(at, digest)
    .map(({ status }) => status)
    .join(' ');
}

test('each blob comes from the mirror, or from the registry where the mirror cannot serve it', async (t) => {
  const rows = Object.entries(ROWS);
  const image = await blobsImage(t, ...rows.map(([, { bytes }]) => bytes));
  const { layout, digests } = image;
  const faults = rows.flatMap(([, { says }], i) =>
    says === undefined ? [] : [{ match: { path: digests[i]! }, action: says }],
  );
  const mirror = await startSandbox(t, { layout, faults });
  const registry = await startSandbox(t, { layout });
  useRegistriesConf(t, registryTable(registry.host, [mirror.host]));
  const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 1 });
  assert.deepEqual([error, misses], [undefined, []]);
  for (const [i, [name, { statuses }]] of rows.entries())
    assert.deepEqual(
      [mirror, registry].map((each) => statusesOf(each, digests[i]!)),
      statuses,
      name,
    );
});

interface Pair {
  /** How each answers at first. */
  readonly says: readonly [mirror: FaultAction, registry: FaultAction];
  readonly statuses: readonly [mirror: string, registry: string];
  readonly misses?: number;
}

const SHORTLY = { retryAfter: { status: 429, seconds: 1 } } as const;
const DOWN = { closeAfterBytes: 0 };

const PAIRS: Readonly<Record<string, Pair>> = {
  'a mirror that asks to wait is waited for where the registry refuses the blob': {
    says: [SHORTLY, { status: 404 }],
    statuses: ['429 206', '404'],
  },
  'a registry that asks to wait is waited for where the mirror lacks the blob': {
    says: [{ status: 404 }, SHORTLY],
    statuses: ['404', '429 206'],
  },
  'when no endpoint is left to try, it is a miss, and then all are tried again': {
    says: [DOWN, DOWN],
    statuses: ['0 206', '0'],
    misses: 1,
  },
  'a failure of the mirror is a miss like any other where the registry refuses the blob': {
    says: [DOWN, { status: 403 }],
    statuses: ['0 206', '403'],
    misses: 1,
  },
};

/** A blob at a mirror and a registry that answer so at first, and the statuses of their responses. */
async function atTwo(t: TestContext, image: BlobsImage, says: Pair['says']) {
  const { layout, digests } = image;
  const serve = (action: FaultAction) => startSandbox(t, { layout, faults: inTurn(digests[0]!, action) });
  const [mirror, registry] = [await serve(says[0]), await serve(says[1])];
  const statuses = () => [mirror, registry].map((each) => statusesOf(each, digests[0]!));
  return { host: registry.host, table: registryTable(registry.host, [mirror.host]), statuses };
}

test('a mirror and its registry are both tried before a blob is given up', {
  concurrency: true,
}, async (t) => {
  const image = await blobsImage(t, 1000);
  const long = { retryAfter: { status: 503, seconds: 300 } } as const;
  const hopeless = await atTwo(t, image, [long, long]);
  const pairs = await Promise.all(
    Object.entries(PAIRS).map(async ([name, pair]) => ({
      ...pair,
      name,
      at: await atTwo(t, image, pair.says),
    })),
  );
  useRegistriesConf(t, [hopeless, ...pairs.map(({ at }) => at)].map(({ table }) => table).join('\n'));
  await Promise.all([
    ...pairs.map(({ name, at, statuses, misses = 0 }) =>
      t.test(name, async (t) => {
        const copied = await copyBlobs(t, image, at.host);
        assert.deepEqual([copied.error, copied.misses.length, at.statuses()], [undefined, misses, statuses]);
      }),
    ),
    t.test('when both ask for too long a wait, the pull fails at once', async (t) => {
      const { error, misses } = await copyBlobs(t, image, hopeless.host);
      assert.equal(error?.code, 'network-hopeless');
      assert.match(error.message, /wait too long: \d+ (s|min|h), until /);
      assert.deepEqual([misses, hopeless.statuses()], [[], ['503', '503']]);
    }),
  ]);
});
