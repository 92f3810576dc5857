import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import {
  emptyToc,
  type HostileLayer,
  salted,
  saltedSplit,
  spaces,
  stargzLayer,
  zstdLayer,
} from '../support/hostile-metadata.js';
import { emptyLayout, metadataRanges, nameImage } from '../support/layout.js';
import { layerAsks } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;

/** All that a pull may have in memory, whatever the metadata of its layers states. */
const MAX_BYTES = 300e6;

/** The same where TOC and tar-split are as large as honest ones may be: the tar-split of one layer comes on top. */
const MAX_WITH_METADATA_BYTES = 400e6;

/** Pulls an image of these layers in a process of its own: what became of it, and what it warned of. */
async function pulled(t: TestContext, layout: string, layers: readonly HostileLayer[], mostBytes: number) {
  const descriptors = layers.map(({ descriptor }) => descriptor);
  nameImage(
    layout,
    'it',
    descriptors,
    layers.map(({ diffId }) => diffId),
  );
  const registry = await startSandbox(t, { layout });
  const options = { store: temporaryDirectory(t), workers: 2 };
  const child = startPullingChild(t, { image: `${registry.host}/x:it`, options });
  assert.equal(await child.gone, 0);
  const maxRssBytes = maxRssBytesOf(child.lines);
  t.diagnostic(`${(maxRssBytes / 1e6).toFixed(0)} MB`);
  assert.ok(maxRssBytes < mostBytes, `${maxRssBytes} bytes`);
  const [outcome] = outcomesOf(child.lines);
  assert.ok(outcome !== undefined);
  const warnings = child.lines.flatMap((line) =>
    'event' in line && line.event === 'warning' ? [line.message] : [],
  );
  return { outcome, warnings, registry };
}

test('footers that point to endless spaces cost little memory, and their layers are opaque', async (t) => {
  const layout = emptyLayout(t);
  const texts = { toc: emptyToc(60 * MIB), tarSplit: spaces(150 * MIB) };
  const layers = await Promise.all([1, 2, 3].map((seed) => zstdLayer(layout, seed, texts, seed === 3)));
  const { outcome, warnings } = await pulled(t, layout, layers, MAX_BYTES);
  assert.ok('verified' in outcome, JSON.stringify(outcome));
  assert.ok(outcome.layers.every(({ format }) => format === 'zstd'));
  const refused = /would decode from [\d.]+ k?B to [\d.]+ [kM]B.*; pulling the full layer instead/;
  assert.ok(warnings.length === 3 && warnings.every((text) => refused.test(text)), warnings.join('\n'));
});

test('metadata of the maximum size is read one layer after the other, and larger metadata not at all', async (t) => {
  const layout = emptyLayout(t);
  const toc = salted(30 * MIB, 7);
  const large = { toc, tarSplit: saltedSplit(100 * MIB, 9) };
  const texts = { toc, tarSplit: saltedSplit(60 * MIB, 8) };
  const layers = await Promise.all(
    [texts, large, texts].map((each, i) => zstdLayer(layout, i, each, i !== 1)),
  );
  const { outcome, warnings } = await pulled(t, layout, layers, MAX_WITH_METADATA_BYTES);
  assert.ok('verified' in outcome, JSON.stringify(outcome));
  const tooLarge = warnings.filter((text) =>
    /would decode from [\d.]+ k?B to [\d.]+ [kM]B; 32 times/.test(text),
  );
  assert.equal(tooLarge.length, 1, warnings.join('\n'));
});

test('the length of an eStargz TOC is read from the last bytes, and an impossible ratio is refused', async (t) => {
  const layout = emptyLayout(t);
  const toc = emptyToc(60 * MIB);
  const layers = await Promise.all([1, 2, 3].map((seed) => stargzLayer(layout, seed, toc)));
  const { outcome, warnings } = await pulled(t, layout, layers, MAX_BYTES);
  assert.ok('verified' in outcome, JSON.stringify(outcome));
  assert.equal(
    warnings.filter((text) => /would decode from [\d.]+ k?B to [\d.]+ [kM]B/.test(text)).length,
    3,
  );
});

test('the metadata of one blob under six DiffIDs is read once', async (t) => {
  const layout = emptyLayout(t);
  const layer = await zstdLayer(layout, 1, { toc: salted(30 * MIB, 7) }, true);
  const others = [2, 3, 4, 5, 6].map((digit) => ({ ...layer, diffId: `sha256:${String(digit).repeat(64)}` }));
  const { outcome, registry } = await pulled(t, layout, [layer, ...others], MAX_BYTES);
  assert.ok('code' in outcome && outcome.code === 'digest-mismatch', JSON.stringify(outcome));
  const [start] = metadataRanges(layer.descriptor).toc;
  assert.equal(layerAsks(registry).filter((ask) => ask.start === start).length, 1);
});
