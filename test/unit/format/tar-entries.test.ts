import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import { tarEntries } from '../../../src/format/tar-entries.js';
import type { TarEntry } from '../../../src/format/tar-header.js';
import { TAR_END } from '../../../src/format/tar-writer.js';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { fixtureBlob, LAYER_DIGEST } from '../../support/fixture-layout.js';
import { sourceOf, tarOf } from '../../support/tars.js';

function walk(tar: Buffer) {
  return [...tarEntries(sourceOf(tar))];
}

/** What the reader that sees every byte says. */
function readThrough(tar: Buffer): Array<{ entry: TarEntry; content: Buffer }> {
  const entries: Array<{ entry: TarEntry; content: Buffer }> = [];
  const reader = new TarReader({
    entry: (entry) => entries.push({ entry, content: Buffer.alloc(0) }),
    content: (bytes) => {
      entries.at(-1)!.content = Buffer.concat([entries.at(-1)!.content, bytes]);
    },
    trailer: () => {},
  });
  reader.push(tar);
  reader.end();
  return entries;
}

test("the entries of another program's layer are those of a reader that sees every byte", async () => {
  const tar = await decompress(fixtureBlob(LAYER_DIGEST));
  const walked = walk(tar).map(({ entry, contentStart, contentBytes }) => ({
    entry,
    content: tar.subarray(contentStart, contentStart + contentBytes),
  }));
  assert.ok(walked.length > 20);
  assert.deepEqual(walked, readThrough(tar));
});

test('long names, long links and pax records are those of the next entry only', () => {
  const long = `${'d/'.repeat(200)}file`;
  const walked = walk(tarOf({ name: long, content: 'x' }, { name: 'short', uid: 2 ** 30 }, { name: 'last' }));
  assert.deepEqual(
    walked.map(({ entry: { name, uid } }) => [name.toString(), uid]),
    [
      [long, 0],
      ['short', 2 ** 30],
      ['last', 0],
    ],
  );
});

test('a tar may end without its two blocks of zeros, and anything may follow them', () => {
  const tar = tarOf({ name: 'a', content: 'abc' });
  const bare = tar.subarray(0, tar.length - TAR_END.length);
  for (const each of [tar, bare, Buffer.concat([tar, Buffer.alloc(512, 1)])])
    assert.equal(walk(each).length, 1);
  assert.deepEqual(walk(Buffer.alloc(0)), []);
});

test('what is no tar is refused', () => {
  const tar = tarOf({ name: 'a', content: 'x'.repeat(600) }, { name: 'b' });
  const wrongSum = Buffer.from(tar);
  wrongSum[0]! ^= 1;
  const hugeMeta = tarOf({ name: 'x'.repeat(300) });
  hugeMeta.write('77777777777', 124, 'latin1');
  for (const bad of [
    wrongSum,
    tar.subarray(0, 700),
    tar.subarray(0, 100),
    Buffer.concat([tar.subarray(0, 1536), Buffer.alloc(512), tar.subarray(1536)]),
    hugeMeta,
  ]) {
    assert.throws(() => walk(bad), { code: 'metadata-malformed' });
  }
});

test("GNU's sparse files are not supported", () => {
  const tar = tarOf({ name: 'a', type: 'S' as '0' });
  assert.throws(() => walk(tar), { code: 'unsupported', message: /sparse/ });
});

test('a global pax header is no entry', () => {
  const tar = tarOf(
    { name: 'pax_global_header', type: 'g' as '0', content: '13 comment=x\n' },
    { name: 'a' },
  );
  assert.deepEqual(
    walk(tar).map(({ entry }) => entry.name.toString()),
    ['a'],
  );
});
