import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { parsePax } from '../format/tar-fields.js';
import { paxRecord } from '../format/tar-writer.js';
import type { Abilities } from '../pool/messages.js';
import { DIRECTORY, FILE, type FileTree, HARD_LINK, xattrRecordsAt } from './file-tree.js';

const CHARACTER_DEVICE = 0x33;
const BLOCK_DEVICE = 0x34;
const FIFO = 0x36;

const SET_IDS = 0o6000;

/** What any user may set of a file that is theirs (xattr(7)). */
const USER_XATTR = 'SCHILY.xattr.user.';

const CAPABILITY_XATTR = 'SCHILY.xattr.security.capability';

/** What this process can make; tar is looked for only if there is something for it. */
export async function findAbilities(tree: FileTree): Promise<Abilities> {
  const wished = abilitiesWithTar();
  const needed = someRow(tree, (row) => needsTar(tree, row, wished));
  return { ...wished, tar: needed ? await hasGnuTar() : true };
}

/** What this process can make if GNU tar is there. */
export function abilitiesWithTar(): Abilities {
  const uid = process.getuid?.() ?? -1;
  return { uid, umask: process.umask(), owners: process.geteuid?.() === 0, tar: true };
}

async function hasGnuTar(): Promise<boolean> {
  try {
    const { stdout } = await promisify(execFile)('tar', ['--version']);
    return stdout.includes('GNU tar');
  } catch {
    return false; // not there, or none that knows the word
  }
}

export function someRow(tree: FileTree, holds: (row: number) => boolean): boolean {
  for (let row = 0; row < tree.count; row++) if (holds(row)) return true;
  return false;
}

/** Whether GNU tar has to make a row, as Node has no call for it: devices, fifos and what has extended attributes. */
export function needsTar(tree: FileTree, row: number, abilities: Abilities): boolean {
  if (!abilities.tar) return false;
  const type = tree.type[row]!;
  if (type === FIFO) return true;
  if (isDevice(type)) return abilities.owners;
  return xattrsFor(tree, row, abilities).length > 0;
}

/** The extended attributes of a row that this user can set, as pax records. */
export function xattrsFor(tree: FileTree, row: number, { owners }: Abilities): Buffer {
  const records = xattrRecordsAt(tree, row);
  if (owners || records.length === 0) return records;
  // tar would close a directory that its user may not write to, before what belongs in it is there.
  if (tree.type[row] === DIRECTORY) return Buffer.alloc(0);
  const own = [...parsePax(records)].filter(([name]) => name.startsWith(USER_XATTR));
  return Buffer.concat(own.map(([name, value]) => paxRecord(name, Buffer.from(value, 'latin1'))));
}

/** Whether Node's own calls make a row. */
export function isPlain(tree: FileTree, row: number, abilities: Abilities): boolean {
  const type = tree.type[row]!;
  return type !== FIFO && !isDevice(type) && !needsTar(tree, row, abilities);
}

/** The mode that a row gets: a program of root must not become one that runs as somebody else. */
export function modeFor(tree: FileTree, row: number, { owners, uid }: Abilities): number {
  const mode = tree.mode[row]!;
  return owners || tree.uid[row] === uid ? mode : mode & ~SET_IDS;
}

/**
 * Whether a file, once it is made, gives a user who reaches it more rights than they have: a device, a program that runs as
 * another user or group, or one with capabilities (capabilities(7)).
 */
export function isPrivileged(tree: FileTree, row: number, abilities: Abilities): boolean {
  const type = tree.type[row]!;
  if (isDevice(type)) return needsTar(tree, row, abilities);
  if (type !== FILE) return false;
  if ((modeFor(tree, row, abilities) & SET_IDS) !== 0) return true;
  const records = xattrRecordsAt(tree, row);
  return records.length > 0 && abilities.tar && parsePax(records).has(CAPABILITY_XATTR);
}

/** One line on what these abilities do not reach, or undefined when they reach everything. */
export function leftOut(tree: FileTree, abilities: Abilities): string | undefined {
  const { owners, tar, uid } = abilities;
  let strangers = 0;
  let setIds = 0;
  let devices = 0;
  let fifos = 0;
  let xattrs = 0;
  for (let row = 0; row < tree.count; row++) {
    const type = tree.type[row]!;
    if (type === HARD_LINK) continue;
    if (isDevice(type)) devices += owners && tar ? 0 : 1;
    else if (type === FIFO && !tar) fifos += 1;
    else {
      if (!owners && tree.uid[row] !== uid) strangers += 1;
      if (modeFor(tree, row, abilities) !== tree.mode[row]) setIds += 1;
      const settable = tar ? xattrsFor(tree, row, abilities).length : 0;
      if (settable < xattrRecordsAt(tree, row).length) xattrs += 1;
    }
  }
  const parts = [
    ...(strangers > 0 ? [`owners of ${strangers}`] : []),
    ...(setIds > 0 ? [`set-user-ID or set-group-ID of ${setIds}`] : []),
    ...(devices > 0 ? [`devices: ${devices}`] : []),
    ...(fifos > 0 ? [`fifos: ${fifos}`] : []),
    ...(xattrs > 0 ? [`extended attributes of ${xattrs}`] : []),
  ];
  if (parts.length === 0) return undefined;
  const why = owners
    ? 'without GNU tar'
    : tar
      ? 'as a user who is not root'
      : 'as a user who is not root and without GNU tar';
  return `left out ${why}: ${parts.join(', ')}`;
}

function isDevice(type: number): boolean {
  return type === CHARACTER_DEVICE || type === BLOCK_DEVICE;
}
