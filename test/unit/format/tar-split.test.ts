import assert from 'node:assert/strict';
import { test } from 'node:test';
import { copyTarBytes, MAX_TAR_BYTES, scanTarSplit } from '../../../src/format/tar-split.js';
import { readLayers, seededRandom, throwsError } from './fixture.js';

const lines = (...values: object[]) => Buffer.from(values.map((value) => JSON.stringify(value)).join('\n'));

function copy(tarSplit: Buffer, ranges: number[]): Buffer {
  const parts: Buffer[] = [];
  copyTarBytes(tarSplit, Float64Array.from(ranges), (bytes) => parts.push(Buffer.from(bytes)));
  return Buffer.concat(parts);
}

test('the lines of a fixture tile its tar and its raw ones are the bytes of the tar', async () => {
  for (const { tarSplit, tar } of await readLayers()) {
    let end = 0;
    const ranges: number[] = [];
    scanTarSplit(tarSplit, ({ kind, tarStart, lengthBytes, payloadStart, payloadEnd }) => {
      assert.equal(tarStart, end);
      end += lengthBytes;
      if (kind === 'file' || lengthBytes === 0) return;
      const text = tarSplit.toString('latin1', payloadStart, payloadEnd);
      assert.ok(Buffer.from(text, 'base64').equals(tar.subarray(tarStart, end)));
      ranges.push(tarStart, end);
    });
    assert.equal(end, tar.length);
    const raw: Buffer[] = [];
    for (let i = 0; i < ranges.length; i += 2) raw.push(tar.subarray(ranges[i], ranges[i + 1]));
    assert.ok(copy(tarSplit, ranges).equals(Buffer.concat(raw)));
  }
});

test('any part of raw bytes can be copied, over several lines and from any byte of a group', () => {
  const random = seededRandom(1);
  const bytes = Buffer.from(Array.from({ length: 50 }, () => Math.floor(random() * 256)));
  const cuts = [0, 7, 8, 8, 20, 33, 50];
  const split = lines(
    ...cuts.slice(1).map((cut, i) => ({ type: 2, payload: bytes.subarray(cuts[i], cut).toString('base64') })),
  );
  for (let start = 0; start < 50; start++) {
    for (let end = start + 1; end <= 50; end++) {
      assert.ok(copy(split, [start, end]).equals(bytes.subarray(start, end)), `${start} to ${end}`);
    }
  }
  const scattered = [1, 3, 3, 9, 40, 50];
  const wanted = [bytes.subarray(1, 9), bytes.subarray(40, 50)];
  assert.ok(copy(split, scattered).equals(Buffer.concat(wanted)));
});

test('raw bytes above a mebibyte are handed on in pieces of one', () => {
  const bytes = Buffer.alloc(2 * 2 ** 20 + 5, 'zpull');
  const split = lines(
    { type: 2, payload: bytes.toString('base64') },
    { type: 1, size: 4 },
    { type: 2, payload: 'AQI=' },
  );
  const lengths: number[] = [];
  const all = Float64Array.of(0, bytes.length, bytes.length + 4, bytes.length + 6);
  copyTarBytes(split, all, (part) => lengths.push(part.length));
  assert.deepEqual(lengths, [2 ** 20, 2 ** 20, 7]);
  assert.ok(copy(split, [...all]).equals(Buffer.concat([bytes, Buffer.of(1, 2)])));
});

test('inline bytes that are content, past the end or out of order are an internal error', () => {
  const split = lines(
    { type: 2, payload: 'AQID' },
    { type: 1, name: 'a', size: 4 },
    { type: 2, payload: 'AQID' },
  );
  throwsError(() => copy(split, [2, 4]), 'internal', /Tar byte 3 is not the next inline byte/);
  throwsError(() => copy(split, [8, 11]), 'internal', /Tar byte 10 is beyond the tar's end/);
  throwsError(() => copy(split, [7, 8, 0, 1]), 'internal', /Tar byte 0 is not the next inline byte/);
});

test('characters that are no base64 are found when they are decoded', () => {
  for (const payload of ['AB*D', 'A=BC', 'AB=C', '====', 'A===', 'ABC\u00ff', 'AB D']) {
    const split = Buffer.from(`{"type":2,"payload":"${payload}"}`, 'latin1');
    const lengthBytes = scanTarSplit(split, () => {});
    throwsError(
      () => copy(split, [0, lengthBytes]),
      'metadata-malformed',
      /tar-split line 0: payload is not base64/,
    );
  }
});

const malformed: [string, string, RegExp][] = [
  ['an unknown type', '{"type":3}', /line 0: type 3 is unknown/],
  ['no type', '{}', /line 0: type 0 is unknown/],
  ['a negative size', '{"type":1,"name":"a","size":-4}', /line 0: size is negative/],
  ['unpadded base64', '{"type":2,"payload":"AAA"}', /line 0: payload is not padded base64/],
  ['an escape in its base64', '{"type":2,"payload":"AA\\/A"}', /expected a string without escapes/],
  ['a fraction as size', '{"type":1,"size":1.5}', /byte 17: expected an integer/],
  ['something else than lines', '[]', /byte 0: expected an object/],
  ['a line cut off', '{"type":2,"payload":"AAAA', /expected the end of a string, but it ends there/],
  ['a size above every limit', `{"type":1,"size":${MAX_TAR_BYTES + 1}}`, /the tar would be longer than/],
];

for (const [what, text, message] of malformed) {
  test(`a tar-split with ${what} is malformed`, () => {
    throwsError(() => scanTarSplit(Buffer.from(text), () => {}), 'metadata-malformed', message);
  });
}

test('sizes that add up to more than a tar may have are malformed', () => {
  const half = { type: 1, name: 'a', size: MAX_TAR_BYTES };
  const split = lines(half, { type: 1, name: 'b', size: 1 });
  throwsError(() => scanTarSplit(split, () => {}), 'metadata-malformed', /line 1: the tar would be longer/);
});
