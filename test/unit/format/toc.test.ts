import assert from 'node:assert/strict';
import { test } from 'node:test';
import { copyDigest } from '../../../src/format/digest.js';
import { contentPath, printable, scanToc, tocTarSplitDigest } from '../../../src/format/toc.js';
import { readLayers, sha256, throwsError } from './fixture.js';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('the entries of a fixture are those that JSON.parse finds', async () => {
  for (const { toc } of await readLayers()) {
    const parsed = JSON.parse(toc.toString()) as { entries: Record<string, string | number | undefined>[] };
    let count = 0;
    scanToc(toc, (entry) => {
      const expected = parsed.entries[entry.number];
      assert.ok(expected !== undefined);
      assert.equal(entry.number, count++);
      assert.equal(
        entry.type,
        ['reg', 'chunk'].includes(String(expected['type'])) ? expected['type'] : 'other',
      );
      assert.equal(JSON.parse(`"${toc.toString('utf8', entry.nameStart, entry.nameEnd)}"`), expected['name']);
      assert.equal(entry.sizeBytes, expected['size'] ?? 0);
      assert.equal(entry.offset, expected['offset'] ?? 0);
      assert.equal(entry.endOffset, expected['endOffset'] ?? 0);
      assert.equal(entry.chunkSize, expected['chunkSize'] ?? 0);
      assert.equal(entry.chunkOffset, expected['chunkOffset'] ?? 0);
      const text = (start: number, end: number) =>
        start < 0 ? undefined : toc.toString('latin1', start, end);
      assert.equal(text(entry.digestStart, entry.digestEnd), expected['digest']);
      assert.equal(text(entry.chunkDigestStart, entry.chunkDigestEnd), expected['chunkDigest']);
      return true;
    });
    assert.equal(count, parsed.entries.length);
  }
});

test('the TOC of a fixture states the digest of its compressed tar-split', async () => {
  for (const { toc, blob, positions } of await readLayers()) {
    assert.equal(
      tocTarSplitDigest(toc),
      sha256(blob.subarray(positions.tarSplit?.start, positions.tarSplit?.end)),
    );
  }
});

test('a TOC of an older writer states no digest', () => {
  assert.equal(tocTarSplitDigest(Buffer.from('{"entries":null,"version":1}')), undefined);
});

test('names like __proto__ and unknown or repeated fields do no harm', () => {
  const text = `{"__proto__":{"version":9},"version":1,"entries":[
    {"__proto__":{"size":5},"constructor":[{}],"type":"reg","type":"dir","size":1,"size":2,"xattrs":{"a":"b"},"digest":null},
    {"\\u0074ype":"reg","name":"x"}]}`;
  const seen: unknown[] = [];
  scanToc(Buffer.from(text), (entry) => {
    seen.push([entry.type, entry.sizeBytes, entry.digestStart]);
    return true;
  });
  assert.deepEqual(seen, [
    ['other', 2, -1],
    ['reg', 0, -1],
  ]);
});

const malformed: [string, string, RegExp][] = [
  ['another version', '{"version":2,"entries":[]}', /The TOC has version 2; only 1 is known/],
  ['no entries', '{"version":1}', /The TOC has no entries/],
  ['two lists of entries', '{"version":1,"entries":[],"entries":[]}', /two lists of entries/],
  ['a negative size', '{"entries":[{},{"size":-1}]}', /TOC entry 1: size is negative/],
  ['a fraction', '{"entries":[{"offset":1.0}]}', /byte 22: expected an integer/],
  ['an unsafe integer', '{"entries":[{"offset":9007199254740992}]}', /byte 22: expected an integer/],
  ['a string for a number', '{"entries":[{"offset":"1"}]}', /byte 22: expected an integer/],
  [
    'a digest that is none',
    '{"entries":[],"tarSplitDigest":"x"}',
    /The TOC's tarSplitDigest is not a sha256 digest/,
  ],
  ['something after its end', '{"entries":[]} x', /byte 15: expected the end of the document/],
  ['an end too early', '{"entries":[{"type":"reg"}', /but it ends there/],
  ['a trailing comma', '{"entries":[{"type":"reg"},]}', /byte 27: expected an object/],
];

for (const [what, text, message] of malformed) {
  test(`a TOC with ${what} is malformed`, () => {
    throwsError(() => tocTarSplitDigest(Buffer.from(text)), 'metadata-malformed', message);
  });
}

test('nothing of an entry is left when the next one is read', () => {
  const first = { type: 'reg', name: '\n', size: 1, offset: 2, endOffset: 3, chunkSize: 4, chunkOffset: 5 };
  const toc = Buffer.from(
    JSON.stringify({ entries: [{ ...first, innerOffset: 6, digest: 'a', chunkDigest: 'b' }, {}] }),
  );
  scanToc(toc, (entry) => {
    if (entry.number === 1) {
      const { number: _n, type, nameEscaped, digestStart, digestEnd, ...others } = entry;
      const { chunkDigestStart, chunkDigestEnd, textStart, textBytes, ...rest } = others;
      assert.equal(textBytes, '{}'.length);
      assert.ok(textStart > 0);
      assert.deepEqual([type, nameEscaped], ['other', false]);
      assert.deepEqual([digestStart, digestEnd, chunkDigestStart, chunkDigestEnd], [-1, -1, -1, -1]);
      assert.ok(Object.values(rest).every((value) => value === 0));
    }
    return true;
  });
});

test('a digest is copied as bytes, and only if it is one', () => {
  const out = Buffer.alloc(40);
  assert.ok(copyDigest(Buffer.from(`"${DIGEST}"`), 1, 1 + DIGEST.length, out, 4));
  assert.equal(out.toString('hex', 4, 36), DIGEST.slice(7));
  for (const bad of [
    DIGEST.replace('0', 'g'),
    DIGEST.replace('f', 'F'),
    DIGEST.replace('s', 'S'),
    `${DIGEST}0`,
  ]) {
    assert.equal(copyDigest(Buffer.from(bad), 0, bad.length, out, 0), false, bad);
  }
});

test('the path of a content counts only files that are not empty', () => {
  const entries = [
    { type: 'dir', name: 'd/' },
    { type: 'reg', name: 'empty' },
    { type: 'reg', name: 'a', size: 1 },
    { type: 'chunk', name: 'a', size: 1 },
    { type: 'reg', name: 'b\u001b[2J\u202e"é', size: 1 },
  ];
  const toc = Buffer.from(JSON.stringify({ entries }));
  assert.equal(contentPath(toc, 0), 'a');
  assert.equal(contentPath(toc, 1), 'b\\u001b[2J\\u202e"é');
  throwsError(() => contentPath(toc, 2), 'internal', /The TOC has no content 2/);
});

test('a printed path is cut where no line could hold it', () => {
  assert.equal(printable('x'.repeat(200)), 'x'.repeat(200));
  assert.equal(printable('x'.repeat(201)), `${'x'.repeat(200)}…`);
});
