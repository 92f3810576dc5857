import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { readRange } from '../../../../workers/fetch/local-range.js';
import { failureOf } from '../../../support/pull.js';
import { recordEvents } from '../../../support/scripted-server.js';
import { temporaryDirectory } from '../../../support/temporary.js';
import { digestOf } from '../../store/support.js';

test('a blob whose file disappears or shrinks during a pull is an error of the layout', async (t) => {
  const layout = temporaryDirectory(t);
  const blobs = join(layout, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  const digest = digestOf(Buffer.from('blob'));
  const path = join(blobs, digest.slice('sha256:'.length));
  const read = (query = '') => {
    const url = `${pathToFileURL(path).href}${query}`;
    const blob = { url, digest, sizeBytes: 4 };
    return readRange({ blob, start: 0, end: 4, onBytes: () => {}, events: recordEvents() });
  };
  for (const query of ['', '?start=0&size=4']) {
    const failure = await failureOf(read(query));
    assert.equal(failure.code, 'blob-not-found');
    assert.match(failure.hint ?? '', /write the layout again/);
  }
  writeFileSync(path, 'blo');
  for (const query of ['', '?start=0&size=4']) {
    const failure = await failureOf(read(query));
    assert.equal(failure.code, 'metadata-malformed');
    assert.match(failure.hint ?? '', /write the layout again/);
  }
  writeFileSync(path, 'blob');
  assert.deepEqual(await read(), { requests: 1, receivedBytes: 4 });
});
