import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tarEntries } from '../../../src/format/tar-entries.js';
import { paxRecord } from '../../../src/format/tar-writer.js';
import { eachTocHeader } from '../../../src/format/toc-headers.js';
import { tocText } from '../../../src/sandbox/chunked-metadata.js';
import { stargzTocText } from '../../support/layers/stargz-tail.js';
import { type Entry, sourceOf, tarOf } from '../../support/tars.js';

/** Headers that a TOC of these entries makes, or the message that there are none. */
function headers(...entries: readonly object[]): Buffer | string {
  const parts: Buffer[] = [];
  const toc = Buffer.from(JSON.stringify({ version: 1, entries }));
  try {
    eachTocHeader(toc, (header) => parts.push(header));
  } catch (error) {
    return (error as Error).message;
  }
  return Buffer.concat(parts);
}

test('the TOC of either writer makes the headers of the tar again', () => {
  const xattrs = paxRecord('SCHILY.xattr.user.k', Buffer.from([0, 0xff]));
  const entries: Entry[] = [
    { name: 'd/', type: '5', mode: 0o1777 },
    { name: `d/${'long/'.repeat(50)}é`, uid: 70_000_000, gid: 4_294_967_294 },
    { name: 'd/s', type: '2', linkName: `../${'x'.repeat(200)}`, mode: 0o777 },
    { name: 'd/h', type: '1', linkName: 'd/s' },
    { name: 'd/c', type: '3', devMajor: 1, devMinor: 300 },
    { name: 'd/b', type: '4', devMajor: 7, devMinor: 2 },
    { name: 'd/p', type: '6', mtimeSeconds: -5 },
    { name: 'd/x', mode: 0o4755, records: xattrs, mtimeSeconds: 0 },
  ];
  const tar = tarOf(...entries);
  const placed = [...tarEntries(sourceOf(tar))];
  const isWhole = (bytes: Buffer | string) => bytes instanceof Buffer && bytes.equals(tar.subarray(0, -1024));
  for (const textOf of [
    (entry: (typeof placed)[number]['entry']) => tocText(entry, undefined, false),
    (entry: (typeof placed)[number]['entry']) => stargzTocText(entry, undefined, [], 1024),
  ])
    assert.ok(isWhole(headers(...placed.map(({ entry }) => JSON.parse(textOf(entry)) as object))));
  const [nanos] = tarEntries(sourceOf(tarOf({ name: 'n', mtimeSeconds: 5, mtimeNanos: 120_000_000 })));
  const made = headers(JSON.parse(tocText(nanos!.entry, undefined, false)) as object) as Buffer;
  assert.deepEqual([...tarEntries(sourceOf(made))][0]!.entry.mtime, { seconds: 5, nanos: 120_000_000 });
});

test('what a TOC cannot say of a tar is refused', () => {
  const file = { type: 'reg', name: 'x' };
  for (const fields of [
    { type: 'other' },
    { name: 5 },
    { name: 'a\0b' },
    { name: 'a\ufffd' },
    { name: 'a\ud800' },
    { type: 'symlink' },
    { type: 'symlink', linkName: 'a\ufffd' },
    { mode: 'x' },
    { uid: 1.5 },
    { type: 'char', devMajor: -1 },
    { type: 'char', devMinor: 2 ** 40 },
    { modtime: 'yesterday' },
    { modtime: 5 },
    { xattrs: { a: '!' } },
    { xattrs: { 'a=b': '' } },
    { xattrs: { a: 5 } },
    { xattrs: 'a' },
  ])
    assert.match(String(headers({ ...file, ...fields })), /^(The )?TOC/, JSON.stringify(fields));
});
