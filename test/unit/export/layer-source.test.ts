import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  BLOCK_BYTES,
  BlockTags,
  createBlockTags,
  createPartRecords,
  PartTags,
} from '../../../src/export/block-tags.js';
import {
  BlockCache,
  ExtentReader,
  HeaderComparison,
  HeaderSource,
  LayerSource,
} from '../../../src/export/layer-source.js';
import { tarEntries } from '../../../src/format/tar-entries.js';
import { paxRecord } from '../../../src/format/tar-writer.js';
import { readLayerRecord } from '../../../src/store/layer-record.js';
import { PackReader } from '../../../src/store/pack-reader.js';
import { storeTars, tarOf } from '../../support/tars.js';
import { freshStore } from '../store/support.js';

const RECORDS = paxRecord('SCHILY.xattr.user.x', Buffer.alloc(3000, 'value'));
/** The map of a sparse file (GNU tar, format 1.0), which its content begins with. */
const MAP = '1\n7\n6\n';
const SPARSE = Buffer.concat([
  paxRecord('GNU.sparse.major', '1'),
  paxRecord('GNU.sparse.minor', '0'),
  paxRecord('GNU.sparse.realsize', '20'),
]);

/** The extended header of `second` lies in two blocks. */
const TAR = tarOf(
  { name: 'first', content: Buffer.alloc(BLOCK_BYTES - 512 - 1536, 'first') },
  { name: 'second', content: 'second', records: RECORDS },
  { name: 'third', content: Buffer.alloc(BLOCK_BYTES, 'third') },
  { name: 'fourth', content: 'fourth' },
  { name: 'fifth', content: `${MAP.padEnd(512, '\0')}inhole`, records: SPARSE },
);
const BLOCKS = Array.from({ length: Math.ceil(TAR.length / BLOCK_BYTES) }, (_, block) =>
  TAR.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES),
);

/** A layer of `TAR` in a store, and what the threads of an export have of it. */
async function prepare(t: TestContext, records = createPartRecords(100)) {
  const paths = freshStore(t);
  const { diffIds, packs } = await storeTars(paths, TAR);
  const { diffId, extents } = readLayerRecord(paths, diffIds[0]!)!;
  const rows = createBlockTags(TAR.length, records);
  const readHeaders = (blocks?: number[]) => {
    const packReader = new PackReader(paths);
    const comparison = new HeaderComparison((_, block) => blocks?.push(block));
    try {
      const reader = new ExtentReader(packReader, extents);
      const tags = new BlockTags(rows);
      const source = new LayerSource(new BlockCache(), { diffId, reader, tags });
      const whole = blocks === undefined ? { tags, source } : undefined;
      const layer = { diffId, reader, partTags: new PartTags(rows), whole };
      const names = [...tarEntries(new HeaderSource(layer, comparison))].map(({ entry }) => `${entry.name}`);
      comparison.finish();
      return names;
    } finally {
      packReader.close();
    }
  };
  return { packs, readHeaders, tags: new BlockTags(rows), partTags: new PartTags(rows) };
}

const NAMES = ['first', 'second', 'third', 'fourth', 'fifth'];

/** Changes the last occurrence of some text in the packs. */
function change(packs: readonly string[], text: string): void {
  for (const pack of packs) {
    const bytes = readFileSync(pack);
    const at = bytes.lastIndexOf(text);
    if (at < 0) continue;
    bytes[at]! ^= 1;
    writeFileSync(pack, bytes);
    return;
  }
  assert.fail(`no pack has ${text}`);
}

test('who hashes a layer after its headers were read sees every byte of them that differs', async (t) => {
  const { readHeaders, partTags } = await prepare(t);
  assert.deepEqual(readHeaders(), NAMES);
  for (const [block, right] of BLOCKS.entries()) assert.ok(partTags.agrees(block, right));
  const agrees = (at: number) => {
    const block = Math.floor(at / BLOCK_BYTES);
    const bytes = Buffer.from(BLOCKS[block]!);
    bytes[at % BLOCK_BYTES]! ^= 1;
    return partTags.agrees(block, bytes);
  };
  const second = TAR.indexOf('PaxHeaders/entry');
  const headers = [0, 511, second, BLOCK_BYTES - 1, BLOCK_BYTES, second + 512 + RECORDS.length - 1];
  headers.push(TAR.indexOf('third\0'), TAR.indexOf('fourth\0') + 511, TAR.indexOf(MAP) + 2, TAR.length - 1);
  assert.deepEqual(headers.filter(agrees), []);
  // Contents are compared by those who read them.
  assert.ok(agrees(512) && agrees(TAR.indexOf('thirdthird')) && agrees(TAR.indexOf('inhole')));
});

test('who reads headers after the layer was hashed sees what differs from then', async (t) => {
  for (const text of ['user.x', 'fourth\0', MAP.slice(2), undefined]) {
    const { packs, readHeaders, tags } = await prepare(t);
    for (const [block, bytes] of BLOCKS.entries()) assert.ok(tags.agrees(block, bytes));
    if (text === undefined) assert.deepEqual(readHeaders(), NAMES);
    else {
      change(packs, text);
      assert.throws(readHeaders, { code: 'digest-mismatch' });
    }
  }
});

test('headers for whose parts no room is left, or that are read twice, are compared all the same', async (t) => {
  for (const records of [createPartRecords(1), createPartRecords(10), createPartRecords(100)]) {
    const { packs, readHeaders, tags, partTags } = await prepare(t, records);
    assert.deepEqual(readHeaders(), NAMES);
    change(packs, 'user.x');
    // The second time whole blocks are read: either what was read before is seen, or what is hashed now.
    const outcome = (() => {
      try {
        return readHeaders().length;
      } catch (error) {
        return (error as { code: string }).code;
      }
    })();
    const agreed = BLOCKS.every((bytes, block) => tags.agrees(block, bytes) && partTags.agrees(block, bytes));
    assert.ok(outcome === 'digest-mismatch' || !agreed, `${records.length} numbers: ${outcome}`);
  }
});

test('blocks of headers that others are to compare are named, and headers that are read twice are compared here', async (t) => {
  const { packs, readHeaders, partTags } = await prepare(t);
  const blocks: number[] = [];
  for (const _ of [1, 2]) assert.deepEqual(readHeaders(blocks), NAMES);
  assert.deepEqual(blocks, [...BLOCKS.keys(), ...BLOCKS.keys()]);
  assert.ok(BLOCKS.every((bytes, block) => partTags.agrees(block, bytes)));
  change(packs, 'user.x');
  assert.throws(() => readHeaders([]), { code: 'digest-mismatch' });
});

test('a thread that reads parts and one that hashes others at the same time cannot both be right', async () => {
  const blocks = 500;
  const rows = createBlockTags(blocks * BLOCK_BYTES);
  const module = new URL('../../../src/export/block-tags.js', import.meta.url).href;
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { rows, isHash, module } = workerData;
    import(module).then(({ BlockParts, BlockTags, PartTags }) => {
      const [tags, partTags, parts] = [new BlockTags(rows), new PartTags(rows), new BlockParts()];
      const bytes = Buffer.alloc(64, isHash ? 'a' : 'b');
      const agreed = [];
      for (let block = 0; block < ${blocks}; block++) {
        if (isHash) agreed.push(tags.agrees(block, bytes) && partTags.agrees(block, bytes));
        else {
          parts.clear();
          parts.add(0, bytes.subarray(0, 9));
          agreed.push(partTags.record(block, parts) && !tags.has(block));
        }
      }
      parentPort.postMessage(agreed);
    });`;
  const agreed = await Promise.all(
    [true, false].map((isHash) => {
      const worker = new Worker(script, { eval: true, workerData: { module, rows, isHash } });
      return new Promise<boolean[]>((resolve, reject) =>
        worker.once('message', resolve).once('error', reject),
      );
    }),
  );
  for (let block = 0; block < blocks; block++)
    assert.ok(!agreed.every((thread) => thread[block]), `block ${block}`);
});
