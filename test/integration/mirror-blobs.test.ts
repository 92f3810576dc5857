import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FaultAction } from '../../src/sandbox/faults.js';
import { asksFor, blobsImage, copyBlobs } from '../support/blobs.js';
import { registryTable, useRegistriesConf } from '../support/registries-conf.js';
import { startSandbox } from '../support/sandbox.js';

interface Row {
  readonly bytes: number;
  /** What the mirror says of the blob; undefined: it gives it. */
  readonly says?: FaultAction;
  /** Statuses that the mirror and the registry answered. */
  readonly asked: readonly [mirror: string, registry: string];
}

/** In this order, by one connection: an endpoint at which a range seems to be under way when it is not would be full, and passed over. */
const ROWS: Readonly<Record<string, Row>> = {
  'a blob that the mirror has': { bytes: 1000, asked: ['206', ''] },
  'one that it lacks': { bytes: 2000, says: { status: 404 }, asked: ['404', '206'] },
  'one that it has again': { bytes: 3000, asked: ['206', ''] },
  // Its whole answer is closed at its head, as the registry is known to give ranges by then.
  'one of which it gives no part': {
    bytes: 3 * 2 ** 20,
    says: { ignoreRange: true },
    asked: ['200', '206 206 206 206'],
  },
  'one of which it answers with another part, which is no miss': {
    bytes: 4000,
    says: { wrongContentRange: 'bytes 5-14/5632' },
    asked: ['206', '206'],
  },
};

test('each blob comes from the mirror, or from the registry where the mirror is of no use for it', async (t) => {
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
  for (const [i, [name, { asked }]] of rows.entries()) {
    const statuses = [mirror, registry].map((each) =>
      asksFor(each, digests[i]!)
        .map(({ status }) => status)
        .join(' '),
    );
    assert.deepEqual(statuses, asked, name);
  }
});
