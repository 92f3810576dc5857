import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../src/api/errors.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import {
  changeImage,
  type DescriptorJson,
  emptyLayout,
  type Metadata,
  metadataRanges,
  nameImage,
  noise,
  readBlob,
  readConfig,
  readLayerMetadata,
  readManifest,
  tarOf,
  withMetadata,
  writeTars,
} from '../support/layout.js';
import {
  askedBytes,
  assertProven,
  failureOf,
  holdsLayer,
  layerAsks,
  listedImages,
  pull,
  warnings,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const PATH = 'usr/lib/some-library.so';

/** An image of two layers: a small good one, and one with three contents of which PATH is the second. */
async function sample(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [
    tarOf({ small: noise(1, 4000) }),
    tarOf({ first: noise(2, 200_000), [PATH]: noise(3, 300_000), last: noise(4, 100_000) }),
  ]);
  const { layers } = readManifest(layout, 'it');
  const diffIds = readConfig(layout, readManifest(layout, 'it')).rootfs.diff_ids;
  return { layout, small: layers[0]!, layer: layers[1]!, diffIds };
}

/** Somewhere inside the frames of PATH. */
async function placeInPath(layout: string, layer: DescriptorJson): Promise<{ at: number; digest: string }> {
  const { toc } = await readLayerMetadata(layout, layer);
  const { offset, endOffset, digest } = toc.entries.find(({ name }) => name === PATH)!;
  return { at: Math.floor((offset! + endOffset!) / 2), digest: digest! };
}

/** Each of these ends the pull, and leaves neither an image nor the layer concerned in the store. */
async function assertFails(
  t: TestContext,
  layout: string,
  expected: { code: string; layer?: string; says: RegExp; faults?: readonly FaultRule[] },
): Promise<{ store: string; message: string }> {
  const registry = await startSandbox(t, { layout, faults: expected.faults ?? [] });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:it`, { store }));
  assert.deepEqual([error.code, error.exitCode], [expected.code, 6], error.message);
  if (expected.layer !== undefined) assert.equal(error.layer, expected.layer);
  assert.match(error.message, expected.says);
  assert.deepEqual(listedImages(store), []);
  const { diff_ids } = readConfig(layout, readManifest(layout, 'it')).rootfs;
  assert.ok(!holdsLayer(store, diff_ids[1]!));
  return { store, message: error.message };
}

for (const [link, rateBytes] of [
  ['fast', 1e9],
  // The wrong piece is decoded before more bytes come.
  ['slow', 500e3],
] as const) {
  test(`a content that is wrong once is fetched once more, with a warning, on a ${link} link`, async (t) => {
    const { layout, layer } = await sample(t);
    const { at } = await placeInPath(layout, layer);
    const range = `0-${metadataRanges(layer).toc[0] - 9}`;
    const registry = await startSandbox(t, {
      layout,
      rateBytes,
      faults: [{ match: { path: layer.digest, range, nth: 1 }, action: { flipByteAt: at } }],
    });
    const { result, events } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.equal(warnings(events).length, 1);
    assert.match(warnings(events)[0]!, /fetching it again/);
    // What stood before the wrong content was right and is not asked for again.
    const { toc } = await readLayerMetadata(layout, layer);
    const wrongFrom = toc.entries.find(({ name }) => name === PATH)!.offset!;
    const again = layerAsks(registry).filter(({ path, start }) => path.endsWith(layer.digest) && start !== 0);
    assert.ok(again.some(({ start }) => start === wrongFrom));
    assert.equal(result.misses, 0);
    assert.ok(result.fetchedBytes <= askedBytes(layerAsks(registry)));
  });
}

test('a content that is wrong again ends the pull with an error that names layer, path and both digests', async (t) => {
  const { layout, layer, small, diffIds } = await sample(t);
  const { at, digest } = await placeInPath(layout, layer);
  const { store, message } = await assertFails(t, layout, {
    code: 'digest-mismatch',
    layer: layer.digest,
    says: /usr\/lib\/some-library\.so.*expected sha256:[0-9a-f]{64}, got sha256:[0-9a-f]{64}|frames/,
    faults: [{ match: { path: layer.digest }, action: { flipByteAt: at } }],
  });
  assert.ok(message.includes(PATH), message);
  assert.ok(message.includes(digest), message);
  // What proved right before stays, and the next pull needs only the rest.
  const registry = await startSandbox(t, { layout });
  const { result } = await pull(`${registry.host}/x:it`, { store });
  assertProven(result);
  const blobs = layer.size + small.size;
  assert.ok(result.fetchedBytes < blobs - 190_000, `${result.fetchedBytes} of ${blobs}`);
  assert.equal(diffIds.length, 2);
});

test('a TOC or a tar-split that is wrong once is fetched once more', async (t) => {
  const { layout, layer } = await sample(t);
  const { toc, tarSplit } = metadataRanges(layer);
  for (const at of [toc[0] + 10, tarSplit[0] + 10]) {
    const registry = await startSandbox(t, {
      layout,
      faults: [
        {
          match: { path: layer.digest, range: `${toc[0]}-${tarSplit[1] - 1}`, nth: 1 },
          action: { flipByteAt: at },
        },
      ],
    });
    const { result } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.equal(result.fetchedBytes, askedBytes(layerAsks(registry)));
    assert.equal(result.requests, layerAsks(registry).length);
  }
});

test('a TOC or a tar-split that is wrong again ends the pull with an error that names the layer and the source of the digest', async (t) => {
  const { layout, layer } = await sample(t);
  const { toc, tarSplit } = metadataRanges(layer);
  for (const [at, says] of [
    [toc[0] + 10, /TOC does not match manifest-checksum: expected sha256:.*, got sha256:/],
    [tarSplit[0] + 10, /tar-split does not match tarSplitDigest: expected sha256:.*, got sha256:/],
  ] as const) {
    const faults: FaultRule[] = [{ match: { path: layer.digest }, action: { flipByteAt: at } }];
    await assertFails(t, layout, { code: 'digest-mismatch', layer: layer.digest, says, faults });
  }
});

test('a wrong config ends the pull', async (t) => {
  const { layout } = await sample(t);
  const { config } = readManifest(layout, 'it');
  const faults: FaultRule[] = [{ match: { path: config.digest }, action: { flipByteAt: 5 } }];
  await assertFails(t, layout, {
    code: 'digest-mismatch',
    says: new RegExp(`${config.digest}.*sha256:[0-9a-f]{64}`),
    faults,
  });
});

test('a DiffID that is not the digest of the tar ends the pull with an error that names the layer; the other layers stay', async (t) => {
  const { layout, layer, diffIds } = await sample(t);
  const lie = `sha256:${'d'.repeat(64)}`;
  changeImage(layout, 'it', (_, config) => {
    config.rootfs.diff_ids[1] = lie;
  });
  const { store, message } = await assertFails(t, layout, {
    code: 'digest-mismatch',
    layer: layer.digest,
    says: /DiffID/,
  });
  assert.ok(
    message.includes(lie) && message.includes(diffIds[1]!) && message.includes(layer.digest),
    message,
  );
  assert.ok(holdsLayer(store, diffIds[0]!));
});

const ANNOTATIONS: ReadonlyArray<readonly [name: string, value: string, says: RegExp]> = [
  ['manifest-position', '99999999:10:100:1', /manifest-position.*beyond/],
  ['manifest-position', '0x10:10:100:1', /manifest-position/],
  ['manifest-position', '8:10:100', /manifest-position.*3 numbers/],
  ['manifest-position', '8:10:100:2', /manifest-position.*type 2/],
  ['manifest-position', '-8:10:100:1', /manifest-position/],
  ['manifest-position', '8:9999999999999999:100:1', /manifest-position/],
  ['manifest-checksum', 'sha256:xyz', /manifest-checksum/],
  ['tarsplit-position', '8:1e3:100', /tarsplit-position/],
  [
    'tarsplit-position',
    '8:10:99999999999',
    /would decode from 10 B to 100\.0 GB; 256 times as many are the limit/,
  ],
];

/** Pulls an image whose chunked metadata is no good, under a blob that is: with a warning, as a whole, and proven. */
async function assertPulledWhole(t: TestContext, layout: string, layer: DescriptorJson, says: RegExp) {
  const registry = await startSandbox(t, { layout });
  const { result, events } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  const warning = warnings(events).at(-1) ?? '';
  assert.match(warning, says);
  assert.ok(warning.includes(layer.digest) && warning.endsWith('pulling the full layer instead'), warning);
  assert.equal(result.layers.find(({ digest }) => digest === layer.digest)?.format, 'zstd');
  return registry;
}

test('malformed annotations cost a warning, and the layer is pulled as a whole', async (t) => {
  for (const [name, value, says] of ANNOTATIONS) {
    const { layout, layer } = await sample(t);
    changeImage(layout, 'it', ({ layers }) => {
      layers[1]!.annotations![`io.github.containers.zstd-chunked.${name}`] = value;
    });
    await assertPulledWhole(t, layout, layer, says);
  }
});

const METADATA: ReadonlyArray<readonly [what: string, change: (metadata: Metadata) => void, says: RegExp]> = [
  [
    'a range beyond the data',
    ({ toc }) => {
      entryOf(toc, 'last').endOffset = 99_999_999;
    },
    /last|endOffset|TOC/,
  ],
  [
    'a range before that of the content before it',
    ({ toc }) => {
      entryOf(toc, PATH).offset = 3;
    },
    /TOC|offset|overlap/,
  ],
  [
    'a negative offset',
    ({ toc }) => {
      entryOf(toc, PATH).offset = -1;
    },
    /offset/,
  ],
  [
    'another size than tar-split has',
    ({ toc }) => {
      entryOf(toc, PATH).size = 300_001;
    },
    /size|300001/,
  ],
  [
    'an entry that tar-split does not have',
    ({ toc }) => {
      toc.entries.push({ ...entryOf(toc, 'last'), name: 'ghost' });
    },
    /TOC|tar-split/,
  ],
  [
    'a tar-split without its last lines',
    (metadata) => {
      metadata.tarSplit = metadata.tarSplit.subarray(0, metadata.tarSplit.lastIndexOf('\n', -20) + 1);
    },
    /the metadata says/,
  ],
  [
    'a tar-split that is no JSON',
    (metadata) => {
      metadata.tarSplit = Buffer.from('{"type":1,');
    },
    /tar-split/,
  ],
  [
    'a content digest that is none',
    ({ toc }) => {
      entryOf(toc, PATH).digest = 'sha256:short';
    },
    /digest/,
  ],
];

function entryOf(toc: Metadata['toc'], name: string) {
  return toc.entries.find((entry) => entry.name === name)!;
}

for (const [what, change, says] of METADATA) {
  test(`metadata with ${what} causes a warning, and the layer is pulled as an opaque one`, async (t) => {
    const { layout, layer, small, diffIds } = await sample(t);
    const changed = await withMetadata(layout, layer, change);
    nameImage(layout, 'it', [small, changed], diffIds);
    await assertPulledWhole(t, layout, changed, says);
  });
}

test('where both the metadata and the blob are wrong, the pull fails with the error of the metadata', async (t) => {
  const { layout, layer, small, diffIds } = await sample(t);
  const changed = await withMetadata(layout, layer, ({ toc }) => {
    entryOf(toc, PATH).size = 300_001;
  });
  nameImage(layout, 'it', [small, changed], diffIds);
  const faults: FaultRule[] = [{ match: { path: changed.digest }, action: { flipByteAt: 5000 } }];
  await assertFails(t, layout, { code: 'metadata-malformed', layer: changed.digest, says: /300001/, faults });
});

test('metadata that was only serialized again is accepted, so that the tests above find the changes and nothing else', async (t) => {
  const { layout, layer, small, diffIds } = await sample(t);
  const same = await withMetadata(layout, layer, () => {});
  nameImage(layout, 'it', [small, same], diffIds);
  const registry = await startSandbox(t, { layout });
  assertProven((await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) })).result);
});

test('tar headers that differ between tar-split and the blob do not get into the store', async (t) => {
  const { layout, layer, small, diffIds } = await sample(t);
  const changed = await withMetadata(layout, layer, (metadata) => {
    const text = metadata.tarSplit.toString();
    const [, payload = ''] = /"payload":"([A-Za-z0-9+/=]{100,})"/.exec(text) ?? [];
    const header = Buffer.from(payload, 'base64');
    header[0]! ^= 1;
    metadata.tarSplit = Buffer.from(text.replace(payload, header.toString('base64')));
  });
  nameImage(layout, 'it', [small, changed], diffIds);
  const registry = await startSandbox(t, { layout });
  const cold = temporaryDirectory(t);
  const warm = temporaryDirectory(t);
  // Cold, headers come out of the blob. Where the contents are held already, they come from the lying tar-split.
  await writeTars(t, layout, 'contents', [
    tarOf({ other: noise(2, 200_000), names: noise(3, 300_000), here: noise(4, 100_000) }),
  ]);
  await pull(`${registry.host}/x:contents`, { store: warm });
  for (const store of [cold, warm]) {
    const outcome = await pull(`${registry.host}/x:it`, { store }).catch((error: unknown) => error);
    if (outcome instanceof PullError) {
      assert.equal(outcome.code, 'digest-mismatch');
      assert.deepEqual([outcome.layer, holdsLayer(store, diffIds[1]!)], [changed.digest, false]);
      assert.ok(!listedImages(store).some((image) => image.endsWith(':it')));
    } else {
      assertProven((outcome as Awaited<ReturnType<typeof pull>>).result);
    }
  }
});

test('a blob of another size than the manifest states ends the pull', async (t) => {
  const { layout, layer } = await sample(t);
  changeImage(layout, 'it', ({ layers }) => {
    layers[1]!.size += 1000;
  });
  assert.equal(readBlob(layout, layer.digest).length, layer.size);
  const says = /has \d+ bytes at .* says \d+/;
  await assertFails(t, layout, { code: 'metadata-malformed', layer: layer.digest, says });
});

test('a manifest with fewer layers than its config has DiffIDs ends the pull', async (t) => {
  const { layout } = await sample(t);
  changeImage(layout, 'it', ({ layers }) => {
    layers.pop();
  });
  await assertFails(t, layout, { code: 'metadata-malformed', says: /1 layers.*2 DiffIDs/ });
});
