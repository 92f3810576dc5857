import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SampleContent } from '../../../src/sandbox/sample-content.js';
import {
  DEFAULT_LAYER_SHARES,
  planTree,
  type TreeItem,
  type TreeOptions,
} from '../../../src/sandbox/sample-tree.js';

const OPTIONS: TreeOptions = { seed: 1, fileCount: 20_000, layerShares: DEFAULT_LAYER_SHARES, version: 1 };

function filesOf(layers: readonly TreeItem[][]): TreeItem[] {
  return layers.flat().filter((item) => item.type === 'file');
}

function bytesOf(items: readonly TreeItem[]): number {
  return items.reduce((sum, item) => sum + item.content.sizeBytes, 0);
}

function identityOf({ kind, seed, sizeBytes }: SampleContent): string {
  return sizeBytes === 0 ? 'empty' : `${kind} ${seed} ${sizeBytes}`;
}

test('20,000 files are about a gibibyte, half of them below 4 KiB and two thirds of them text', () => {
  const files = filesOf(planTree(OPTIONS));
  assert.equal(files.length, 20_000);
  const gibibytes = bytesOf(files) / 2 ** 30;
  assert.ok(gibibytes > 0.9 && gibibytes < 1.1, `${gibibytes} GiB`);
  const sizes = files.map((file) => file.content.sizeBytes).sort((left, right) => left - right);
  const median = sizes[10_000]!;
  assert.ok(median > 3600 && median < 4500, `median ${median}`);
  assert.ok(sizes.at(-1)! <= 32 * 2 ** 20);
  const texts = files.filter((file) => file.content.kind === 'text').length;
  assert.ok(texts > 13_000 && texts < 13_700, `${texts} texts`);
});

test('layers have their shares of the bytes', () => {
  const layers = planTree(OPTIONS);
  const total = bytesOf(layers.flat());
  const shares = layers.map((layer) => bytesOf(layer) / total);
  for (const [row, share] of [0.5, 0.3, 0.15, 0.05].entries()) {
    assert.ok(Math.abs(shares[row]! - share) < 0.05, `layer ${row} has ${shares[row]}`);
  }
});

test('there are empty files, copies, symlinks and hard links, a few in a hundred', () => {
  const items = planTree(OPTIONS).flat();
  const files = items.filter((item) => item.type === 'file');
  const known = new Set<string>();
  let copies = 0;
  for (const { content } of files) {
    const identity = identityOf(content);
    if (identity !== 'empty' && known.has(identity)) copies += 1;
    known.add(identity);
  }
  const counts = [
    copies,
    files.filter((file) => file.content.sizeBytes === 0).length,
    items.filter((item) => item.type === 'symlink').length,
    items.filter((item) => item.type === 'hardlink').length,
  ];
  for (const [row, percent] of [3, 2, 4, 1].entries()) {
    assert.ok(Math.abs(counts[row]! / 200 - percent) < 0.5, `${counts}`);
  }
});

test('every path occurs once, after its directory, and a hard link after its file', () => {
  for (const version of [1, 2] as const) {
    // With this seed version 2 drops two files that have hard links.
    for (const layer of planTree({ ...OPTIONS, seed: 6, version })) {
      const seen = new Set<string>(['']);
      for (const { type, path, target } of layer) {
        const name = type === 'directory' ? path.slice(0, -1) : path;
        assert.ok(seen.has(path.slice(0, name.lastIndexOf('/') + 1)), path);
        assert.ok(!seen.has(path), path);
        if (type === 'hardlink') assert.ok(seen.has(target), target);
        seen.add(path);
      }
    }
  }
});

test('the same options give the same plan and another seed another one', () => {
  const options = { ...OPTIONS, fileCount: 500 };
  assert.deepEqual(planTree(options), planTree(options));
  assert.notDeepEqual(planTree(options), planTree({ ...options, seed: 2 }));
});

test('version 2 changes 3 % of the files and a tenth of the bytes, and adds and drops a few', () => {
  const before = filesOf(planTree(OPTIONS));
  const after = filesOf(planTree({ ...OPTIONS, version: 2 }));
  const contents = new Map(before.map((file) => [file.path, file.content]));
  const changed = after.filter((file) => {
    const content = contents.get(file.path);
    return content !== undefined && identityOf(content) !== identityOf(file.content);
  });
  const paths = new Set(after.map((file) => file.path));
  assert.equal(changed.length, 600);
  const share = bytesOf(changed) / bytesOf(before);
  assert.ok(share > 0.09 && share < 0.11, `${share} of the bytes`);
  assert.equal(after.filter((file) => !contents.has(file.path)).length, 100);
  assert.equal(before.filter((file) => !paths.has(file.path)).length, 100);
});

test('a sample of one file, of one layer or of none has a plan', () => {
  for (const fileCount of [0, 1, 2]) {
    for (const layerShares of [[1], [1, 1, 1, 1, 1, 1]]) {
      for (const version of [1, 2] as const) {
        const layers = planTree({ seed: 7, fileCount, layerShares, version });
        assert.equal(layers.length, layerShares.length);
        if (version === 1) assert.equal(filesOf(layers).length, fileCount);
      }
    }
  }
});
