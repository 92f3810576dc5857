import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import {
  ANNOTATED_DIALECT,
  type ChunkedDialect,
  goJson,
  goText,
  OLD_DIALECT,
} from '../../../src/sandbox/chunked-metadata.js';
import { writeChunkedLayer } from '../../../src/sandbox/chunked-writer.js';
import { cutUp, decodeLayer, fixtureLayers } from '../../support/chunked-layers.js';
import { dialectLayers, readOldLayer, type StoredLayer, sha256 } from '../../support/dialect-layers.js';

const PREFIX = 'io.github.containers.zstd-chunked.';
/** What the config's DiffID counts and writers before 1.52 lose: zeros up to a whole record of tar. */
const RECORD_BYTES = 10_240;

async function write(tar: Buffer, dialect: ChunkedDialect): Promise<StoredLayer> {
  const written: Buffer[] = [];
  const layer = await writeChunkedLayer(
    cutUp(tar, 10_000),
    (bytes) => written.push(bytes),
    () => {},
    dialect,
  );
  return { name: 'written', blob: Buffer.concat(written), mediaType: 'tar+zstd', ...layer };
}

/** A TOC without what depends on how well the writer compresses. */
function withoutOffsets(toc: string): string {
  return toc.replace(/"(?:offset|endOffset)":\d+,?/g, '');
}

test("a layer of Debian 12's skopeo, decoded, is written with the same TOC but for the offsets", async () => {
  for (const fixture of dialectLayers('old')) {
    const theirs = await readOldLayer(fixture);
    const padding = Buffer.alloc((RECORD_BYTES - (theirs.tar.length % RECORD_BYTES)) % RECORD_BYTES);
    const tar = Buffer.concat([theirs.tar, padding]);
    assert.equal(sha256(tar), fixture.diffId);
    const layer = await write(tar, OLD_DIALECT);
    const mine = await readOldLayer(layer);
    assert.ok(mine.tar.equals(tar));
    assert.equal(layer.diffId, fixture.diffId);
    assert.equal(withoutOffsets(mine.toc), withoutOffsets(theirs.toc), fixture.name);
  }
});

test('the digest of the tar-split is in the annotation, and nothing else differs', async () => {
  for (const fixture of await fixtureLayers()) {
    const { blob, annotations, diffId } = await write(fixture.tar, ANNOTATED_DIALECT);
    const decoded = await decodeLayer(blob, annotations);
    assert.ok(decoded.tar.equals(fixture.tar));
    assert.equal(sha256(decoded.tar), diffId);
    assert.equal(decoded.tarSplit, fixture.tarSplit);
    assert.equal(JSON.parse(decoded.toc).tarSplitDigest, undefined);
    const [start = 0, length = 0] = annotations[`${PREFIX}tarsplit-position`]!.split(':').map(Number);
    const bytes = blob.subarray(start, start + length);
    assert.equal(annotations[`${PREFIX}tarsplit-checksum`], sha256(bytes));
    assert.equal((await decompress(bytes)).toString(), fixture.tarSplit);
    assert.equal(blob.toString('latin1', blob.length - 8), 'GNUlInUx');
    assert.equal(blob.readUInt32LE(blob.length - 68), 64);
  }
});

test('what Go escapes is escaped', () => {
  assert.equal(
    goJson('a<b>&\u2028\u2029"\\\n\u0001é'),
    '"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\"\\\\\\n\\u0001é"',
  );
});

test('each byte that is not UTF-8 becomes one escaped U+FFFD, and a U+FFFD of the name stays itself', () => {
  const bytes = Buffer.from([0x61, 0xe9, 0xe2, 0x82, 0xf0, 0x9f, 0x98, 0x80, 0xef, 0xbf, 0xbd, 0xff]);
  assert.equal(goJson(goText(bytes)), '"a\\ufffd\\ufffd\\ufffd😀\ufffd\\ufffd"');
});

test('a name that spells an escape is left alone', () => {
  assert.equal(goJson(goText(Buffer.from('\\udc80'))), '"\\\\udc80"');
});
