import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHeader, type TarTime } from '../../../src/format/tar-header.js';
import { TAR_END, tarHeader } from '../../../src/format/tar-writer.js';
import { cutUp } from '../../support/chunked-layers.js';
import { dialectLayers, readStargzLayer, type StoredLayer } from '../../support/dialect-layers.js';
import type { StargzCuts } from '../../support/layers/stargz-content.js';
import { ESTARGZ, STARGZ_ZSTD, stargzTocText } from '../../support/layers/stargz-tail.js';
import { stargzWriter } from '../../support/layers/stargz-writer.js';
import { noise, tarOf } from '../../support/layout.js';

const FORMS = [
  { name: 'estargz', compression: ESTARGZ, mediaType: 'tar+gzip' },
  { name: 'nerdctl', compression: STARGZ_ZSTD, mediaType: 'tar+zstd' },
] as const;
type Form = (typeof FORMS)[number];

/** The landmark's header and content, padded. */
const LANDMARK_BYTES = 1024;

async function write(
  { name, compression, mediaType }: Form,
  pieces: readonly Buffer[],
  cuts: Partial<StargzCuts> = {},
): Promise<StoredLayer> {
  const written: Buffer[] = [];
  const layer = await stargzWriter(compression, cuts)(
    pieces,
    (bytes) => written.push(bytes),
    () => {},
  );
  return { name, blob: Buffer.concat(written), mediaType, ...layer };
}

/** What lies between the landmark and the TOC: the entries. */
function entriesOf(tar: Buffer): Buffer {
  const toc = tar.lastIndexOf('stargz.index.json\0', -1, 'latin1');
  return tar.subarray(LANDMARK_BYTES, toc < 0 ? tar.length : toc);
}

/** A TOC without what depends on how well the writer compresses. */
function withoutOffsets(toc: string): string {
  return toc.replace(/\t*"offset": \d+,\n/g, '');
}

test('a layer of the reference writer, taken apart, is written with the same TOC but for the offsets', async () => {
  for (const form of FORMS) {
    for (const fixture of dialectLayers(form.name)) {
      const theirs = await readStargzLayer(fixture);
      const tar = Buffer.concat([entriesOf(theirs.tar), TAR_END]);
      const layer = await write(form, cutUp(tar, 10_000));
      const mine = await readStargzLayer(layer);
      assert.ok(entriesOf(mine.tar).equals(entriesOf(theirs.tar)), fixture.name);
      assert.equal(withoutOffsets(mine.toc), withoutOffsets(theirs.toc), fixture.name);
      assert.deepEqual(Object.keys(layer.annotations).sort(), Object.keys(fixture.annotations).sort());
      // The tar of the zstd form ends before the TOC, so that nothing of it depends on offsets.
      if (form.name === 'nerdctl') assert.ok(mine.tar.subarray(512).equals(theirs.tar.subarray(512)));
    }
  }
});

test('each content begins a member that runs up to the next one', async () => {
  const tar = tarOf({ a: noise(1, 700), none: Buffer.alloc(0), b: noise(2, 512) });
  for (const form of FORMS) {
    const { members } = await readStargzLayer(await write(form, [tar]));
    const sizes = members.map(({ raw }) => raw.length);
    // The landmark's header; the landmark with the header of a; a with those of none and b; b without the archive's end.
    assert.deepEqual(sizes.slice(0, 4), [512, 512 + 512, 1024 + 1024, 512], form.name);
  }
});

test('a content above the size of a chunk has several, and only whole ones state their size', async () => {
  const tar = tarOf({ even: noise(1, 2000), odd: noise(2, 2500), small: noise(3, 999) });
  for (const form of FORMS) {
    const { entries, members } = await readStargzLayer(
      await write(form, cutUp(tar, 333), { chunkBytes: 1000 }),
    );
    const shown = entries.map(({ type, name, chunkOffset, chunkSize }) => [
      type,
      name,
      chunkOffset,
      chunkSize,
    ]);
    assert.deepEqual(shown.slice(1), [
      ['reg', 'even', undefined, 1000],
      ['chunk', 'even', 1000, 1000],
      ['reg', 'odd', undefined, 1000],
      ['chunk', 'odd', 1000, 1000],
      ['chunk', 'odd', 2000, undefined],
      ['reg', 'small', undefined, undefined],
    ]);
    const starts = members.map(({ start }) => start);
    for (const { offset } of entries) assert.ok(starts.includes(offset!));
  }
});

test('contents share a member until it has the bytes that were asked for', async () => {
  const files = Object.fromEntries(Array.from({ length: 6 }, (_, row) => [`f${row}`, noise(row + 1, 600)]));
  for (const form of FORMS) {
    const layer = await write(form, [tarOf(files)], { minChunkBytes: 4000 });
    const { entries } = await readStargzLayer(layer);
    const [landmark, ...rest] = entries;
    assert.equal(
      landmark!.innerOffset,
      undefined,
      'the landmark begins a member, however little is before it',
    );
    // From one content to the next: 1024 bytes of content and padding, 512 of header; the landmark takes 512 and 512.
    const inner = [1024, 1024 + 1536, undefined, 1536, 2 * 1536, undefined];
    assert.deepEqual(
      rest.map(({ innerOffset }) => innerOffset),
      inner,
      form.name,
    );
    assert.deepEqual(new Set(entries.map(({ offset }) => offset)).size, 3);
  }
});

test('a tar without its end, or without entries, is a layer too', async () => {
  const whole = tarOf({ a: noise(1, 700) });
  const open = whole.subarray(0, whole.length - TAR_END.length);
  for (const form of FORMS) {
    const one = await readStargzLayer(await write(form, [whole]));
    const other = await readStargzLayer(await write(form, [open]));
    assert.ok(other.tar.equals(one.tar));
    const none = await readStargzLayer(await write(form, [TAR_END]));
    assert.equal(none.entries.length, 1);
  }
});

const FILE = { type: '0', mode: 0, uid: 0, gid: 0, sizeBytes: 0, mtimeSeconds: 0, mtimeNanos: 0 } as const;

function modtime(mtime: TarTime): unknown {
  const entry = { ...parseHeader(tarHeader({ ...FILE, name: 'f' })), mtime };
  return JSON.parse(stargzTocText(entry, undefined, [], 1)).modtime;
}

test('times are of whole seconds, the nearest ones, and the first second of 1970 is none', () => {
  assert.equal(modtime({ seconds: 1, nanos: 499_999_999 }), '1970-01-01T00:00:01Z');
  assert.equal(modtime({ seconds: 1, nanos: 500_000_000 }), '1970-01-01T00:00:02Z');
  assert.equal(modtime({ seconds: -1, nanos: 600_000_000 }), '1970-01-01T00:00:00Z');
  assert.equal(modtime({ seconds: 0, nanos: 900_000_000 }), undefined);
});

test('a record is indented as the reference writer does, with its names escaped as Go does', () => {
  const entry = parseHeader(tarHeader({ ...FILE, type: '2', name: 'a&b', linkName: 'c<d', mode: 0o777 }));
  const lines = [
    '{',
    '\t"name": "a\\u0026b",',
    '\t"type": "symlink",',
    '\t"linkName": "c\\u003cd",',
    '\t"mode": 511',
    '}',
  ];
  assert.equal(stargzTocText(entry, undefined, [], 1), lines.map((line) => `\n\t\t${line}`).join(''));
});
