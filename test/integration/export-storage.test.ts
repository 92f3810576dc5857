import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyImage, exportRootfs, exportTar } from '../../src/index.js';
import { failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { storeTars, tarOf } from '../support/tars.js';
import { freshStore } from '../unit/store/support.js';

const skip = skipUnlessMount();
const LARGE = Buffer.alloc(8 * 2 ** 20, 'large');

test('a destination without room is told as that, and nothing is left there', { skip }, async (t) => {
  const paths = freshStore(t);
  const { diffIds } = await storeTars(paths, tarOf({ name: 'a/small' }, { name: 'b/large', content: LARGE }));
  const disk = smallDisk(t, 4 * 2 ** 20);
  for (const exporting of [
    () => exportRootfs({ store: paths.root, diffIds, directory: join(disk, 'out') }),
    () => exportTar({ store: paths.root, diffIds, file: join(disk, 'out.tar') }),
  ]) {
    const { code, hint } = await failureOf(exporting());
    assert.deepEqual([code, hint?.includes('another destination')], ['store-full', true]);
    assert.deepEqual(readdirSync(disk), []);
  }
});

test('a copy to a disk without room names nothing', { skip }, async (t) => {
  const registry = await startSandbox(t);
  const path = join(smallDisk(t, 200 * 1024), 'layout');
  const destination = { kind: 'layout', path } as const;
  const { code, hint } = await failureOf(copyImage(`${registry.host}/a:chunked-v1`, { destination }));
  assert.deepEqual([code, hint?.includes('another destination')], ['store-full', true]);
  assert.equal(existsSync(join(path, 'index.json')), false);
});
