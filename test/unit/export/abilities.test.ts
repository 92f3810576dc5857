import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isPlain,
  modeFor,
  needsTar,
  omissionWarning,
  ownerFor,
  xattrsFor,
} from '../../../src/export/abilities.js';
import { flatten } from '../../../src/export/flatten.js';
import { paxRecord } from '../../../src/format/tar-writer.js';
import { sourceOf, tarOf } from '../../support/tars.js';

const USER = paxRecord('SCHILY.xattr.user.x', 'y');
const SECURITY = paxRecord('SCHILY.xattr.security.capability', 'c');

/** Rows: 0 device, 1 fifo, 2 hard link's file, 3 hard link, 4 plain, 5 set-user-ID, 6 its own user's, 7 directory. */
const TREE = flatten([
  sourceOf(
    tarOf(
      { name: 'a-device', type: '4', devMajor: 7 },
      { name: 'b-fifo', type: '6' },
      { name: 'c-file', records: Buffer.concat([SECURITY, USER]) },
      { name: 'd-link', type: '1', linkName: 'c-file' },
      { name: 'e-plain' },
      { name: 'f-set-uid', mode: 0o6755 },
      { name: 'g-own', uid: 1000, mode: 0o4755 },
      { name: 'h-directory', type: '5', records: USER },
    ),
  ),
]);
const ROOT = { uid: 0, umask: 0o22, owners: true, tar: true };
const USER_1000 = { uid: 1000, umask: 0o22, owners: false, tar: true };
const ROWS = [...Array(TREE.count).keys()];

test('what Node cannot make is made by tar, as far as the user may', () => {
  const byTar = (abilities: typeof ROOT) => ROWS.filter((row) => needsTar(TREE, row, abilities));
  assert.deepEqual(byTar(ROOT), [0, 1, 2, 7]);
  assert.deepEqual(byTar(USER_1000), [1, 2]);
  assert.deepEqual(byTar({ ...ROOT, tar: false }), []);
  const byNode = (abilities: typeof ROOT) => ROWS.filter((row) => isPlain(TREE, row, abilities));
  assert.deepEqual(byNode(ROOT), [3, 4, 5, 6]);
  assert.deepEqual(byNode({ ...ROOT, tar: false }), [2, 3, 4, 5, 6, 7]);
});

test('a user sets only attributes of users, and no set-user-ID of others', () => {
  assert.deepEqual(xattrsFor(TREE, 2, ROOT), Buffer.concat([SECURITY, USER]));
  assert.deepEqual(xattrsFor(TREE, 2, USER_1000), USER);
  assert.deepEqual(xattrsFor(TREE, 7, USER_1000), Buffer.alloc(0));
  assert.deepEqual(
    [5, 6].map((row) => modeFor(TREE, row, USER_1000).toString(8)),
    ['755', '4755'],
  );
  assert.equal(modeFor(TREE, 5, ROOT), 0o6755);
});

test('one warning lists what is left out', () => {
  assert.equal(omissionWarning(TREE, ROOT), undefined);
  assert.equal(
    omissionWarning(TREE, USER_1000),
    'left out as a user who is not root: owners of 5, set-user-ID or set-group-ID of 1, devices: 1, extended attributes of 2',
  );
  assert.equal(
    omissionWarning(TREE, { ...ROOT, tar: false }),
    'left out without GNU tar: devices: 1, fifos: 1, extended attributes of 2',
  );
});

/** Rows: 0 of root and mapped, 1 of a group that is not, 2 of a user that is not, 3 of nobody, 4 a device. */
const IDS = flatten([
  sourceOf(
    tarOf(
      { name: 'a', uid: 0, gid: 7, mode: 0o6755 },
      { name: 'b', uid: 3, gid: 50, mode: 0o6755 },
      { name: 'c', uid: 50, gid: 7, mode: 0o6755, records: Buffer.concat([SECURITY, USER]) },
      { name: 'd', uid: 2 ** 32 - 1, gid: 7, mode: 0o4755 },
      { name: 'e', type: '3' },
    ),
  ),
]);
const ROWS_OF_IDS = [...Array(IDS.count).keys()];
const NAMESPACE = { ...ROOT, ids: { uids: [0, 1, 3, 2], gids: [0, 10], why: 'namespace' } } as const;
const AS_ASKED = { ...ROOT, ids: { uids: [], gids: [], why: 'not-requested' } } as const;
const NONE = 2 ** 32 - 1;

test('in a user namespace files are given those IDs that it maps, and no program becomes another user', () => {
  assert.deepEqual(ROWS_OF_IDS.map((row) => ownerFor(IDS, row, NAMESPACE)).slice(0, 4), [
    { uid: 0, gid: 7 },
    { uid: 3, gid: NONE },
    { uid: NONE, gid: 7 },
    { uid: NONE, gid: 7 },
  ]);
  const modes = ROWS_OF_IDS.map((row) => modeFor(IDS, row, NAMESPACE).toString(8));
  assert.deepEqual(modes.slice(0, 4), ['6755', '4755', '755', '755']);
  assert.deepEqual([needsTar(IDS, 4, NAMESPACE), xattrsFor(IDS, 2, NAMESPACE)], [false, USER]);
  assert.equal(
    omissionWarning(IDS, NAMESPACE),
    'left out in a user namespace: owners of 2 whose IDs are not mapped, set-user-ID or set-group-ID of 3, devices: 1, extended attributes of 1',
  );
});

test('owners that were not asked for are not missed, but programs of others lose their rights', () => {
  assert.deepEqual(new Set(ROWS_OF_IDS.map((row) => ownerFor(IDS, row, AS_ASKED))), new Set([undefined]));
  const modes = ROWS_OF_IDS.map((row) => modeFor(IDS, row, AS_ASKED).toString(8));
  assert.deepEqual(modes.slice(0, 4), ['4755', '755', '755', '755']);
  assert.equal(needsTar(IDS, 4, AS_ASKED), true);
  assert.equal(
    omissionWarning(IDS, AS_ASKED),
    'left out along with the owners: set-user-ID or set-group-ID of 4',
  );
});

test('an ID that is none leaves the owner as it is', () => {
  assert.deepEqual(ownerFor(IDS, 3, ROOT), { uid: NONE, gid: 7 });
  assert.deepEqual(
    [modeFor(IDS, 3, ROOT), omissionWarning(IDS, ROOT)],
    [0o755, 'left out: set-user-ID or set-group-ID of 1'],
  );
});
