import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { OpenDirectory } from '../../../src/files/open-directory.js';
import { emptyDirectory, removeAt } from '../../../src/files/remove-tree.js';
import { temporaryDirectory } from '../../support/temporary.js';

for (const canHold of [true, false]) {
  test(`a tree is removed and no link followed${canHold ? '' : ', without /proc'}`, {
    skip: canHold && !existsSync('/proc/self/fd') && 'needs /proc',
  }, async (t) => {
    const outside = temporaryDirectory(t);
    writeFileSync(join(outside, 'kept'), '');
    const directory = temporaryDirectory(t);
    mkdirSync(join(directory, 'a/b'), { recursive: true });
    for (const path of ['link', 'a/link', 'a/b/link']) symlinkSync(outside, join(directory, path));
    for (const path of ['file', 'a/b/caf\xe9'])
      writeFileSync(Buffer.from(join(directory, path), 'latin1'), '');
    chmodSync(join(directory, 'a/b'), 0o500);
    chmodSync(join(directory, 'a'), 0o500);
    const held = OpenDirectory.hold(directory, canHold);
    t.after(() => held.close());
    await removeAt(held, 'absent');
    await removeAt(held, 'link');
    await removeAt(held, Buffer.from('a'));
    assert.deepEqual(readdirSync(directory), ['file']);
    await emptyDirectory(held);
    assert.deepEqual([readdirSync(directory), readdirSync(outside)], [[], ['kept']]);
  });
}
