import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHeader, type TarTime } from '../../../src/format/tar-header.js';
import { tarHeader } from '../../../src/format/tar-writer.js';
import { stargzTocText } from '../../support/layers/stargz-toc-text.js';

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
