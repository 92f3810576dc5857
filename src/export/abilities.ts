import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { parsePax } from '../format/tar-fields.js';
import { paxRecord } from '../format/tar-writer.js';
import type { Abilities, AssignableIds } from '../pool/messages.js';
import { DIRECTORY, FILE, type FileTree, HARD_LINK, xattrRecordsAt } from './file-tree.js';

const CHARACTER_DEVICE = 0x33;
const BLOCK_DEVICE = 0x34;
const FIFO = 0x36;

const SET_IDS = 0o6000;
const SET_GROUP_ID = 0o2000;

/** The ID that leaves an owner unchanged (chown(2)). */
export const NO_ID = 2 ** 32 - 1;

/** Prefix of the attributes that the owner of a file may set (xattr(7)). */
const USER_XATTR = 'SCHILY.xattr.user.';

const CAPABILITY_XATTR = 'SCHILY.xattr.security.capability';

/** ID map of the initial user namespace: all IDs except -1 (user_namespaces(7)). */
const ALL_IDS = '0 0 4294967295';

/** Detects what this process can create; looks for GNU tar only if a row needs it. */
export async function detectAbilities(tree: FileTree, sameOwner: boolean): Promise<Abilities> {
  const wished = assumeGnuTar(sameOwner);
  const needed = someRow(tree, (row) => needsTar(tree, row, wished));
  return { ...wished, tar: needed ? await hasGnuTar() : true };
}

/**
 * Returns what this process can create if GNU tar is installed; without `sameOwner` it owns all
 * files.
 */
export function assumeGnuTar(sameOwner: boolean): Abilities {
  const uid = process.getuid?.() ?? -1;
  const owners = process.geteuid?.() === 0 && mayChangeOwners();
  const ids = owners ? assignableIds(sameOwner) : undefined;
  return { uid, umask: process.umask(), owners, tar: true, ...(ids && { ids }) };
}

/** Returns whether this process has CAP_CHOWN, capability 0 (capabilities(7)); true outside of Linux. */
function mayChangeOwners(): boolean {
  try {
    const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
    return effective === undefined || (BigInt(`0x${effective}`) & 1n) !== 0n;
  } catch {
    return true; // another system, or no /proc
  }
}

async function hasGnuTar(): Promise<boolean> {
  try {
    const { stdout } = await promisify(execFile)('tar', ['--version']);
    return stdout.includes('GNU tar');
  } catch {
    return false; // not installed, or without --version
  }
}

/** Returns whether any row fulfils a condition. */
export function someRow(tree: FileTree, holds: (row: number) => boolean): boolean {
  for (let row = 0; row < tree.count; row++) if (holds(row)) return true;
  return false;
}

/**
 * Returns whether a row needs GNU tar, as Node cannot create it: devices, fifos, extended
 * attributes.
 */
export function needsTar(tree: FileTree, row: number, abilities: Abilities): boolean {
  if (!abilities.tar) return false;
  const type = tree.type[row]!;
  if (type === FIFO) return true;
  if (isDevice(type)) return makesDevices(abilities);
  return xattrsFor(tree, row, abilities).length > 0;
}

/** Returns the extended attributes of a row that this user can set, as pax records. */
export function xattrsFor(tree: FileTree, row: number, abilities: Abilities): Buffer {
  const records = xattrRecordsAt(tree, row);
  if (makesDevices(abilities) || records.length === 0) return records;
  // tar would set the final mode, which may forbid the writes into the directory that follow.
  if (tree.type[row] === DIRECTORY) return Buffer.alloc(0);
  const own = [...parsePax(records)].filter(([name]) => name.startsWith(USER_XATTR));
  return Buffer.concat(own.map(([name, value]) => paxRecord(name, Buffer.from(value, 'latin1'))));
}

/** Returns whether Node can create a row without GNU tar. */
export function isPlain(tree: FileTree, row: number, abilities: Abilities): boolean {
  const type = tree.type[row]!;
  return type !== FIFO && !isDevice(type) && !needsTar(tree, row, abilities);
}

/** Returns the owner to set, with `NO_ID` for an ID to leave unchanged; undefined if both are. */
export function ownerFor(
  tree: FileTree,
  row: number,
  { owners, ids }: Abilities,
): { readonly uid: number; readonly gid: number } | undefined {
  if (!owners) return undefined;
  const uid = assignable(tree.uid[row]!, ids?.uids);
  const gid = assignable(tree.gid[row]!, ids?.gids);
  return uid === NO_ID && gid === NO_ID ? undefined : { uid, gid };
}

function assignable(id: number, ranges: readonly number[] | undefined): number {
  if (ranges === undefined) return id;
  for (let at = 0; at < ranges.length; at += 2)
    if (id >= ranges[at]! && id < ranges[at]! + ranges[at + 1]!) return id;
  return NO_ID;
}

/** Returns the mode to set, without set-ID bits for an owner or group that cannot be set. */
export function modeFor(tree: FileTree, row: number, abilities: Abilities): number {
  const mode = tree.mode[row]!;
  if ((mode & SET_IDS) === 0) return mode;
  const owner = ownerFor(tree, row, abilities);
  const isOwn = tree.uid[row] === abilities.uid;
  if (!isOwn && (owner === undefined || owner.uid === NO_ID)) return mode & ~SET_IDS;
  const losesGroup = abilities.owners
    ? owner === undefined || owner.gid === NO_ID
    : abilities.uid === 0 && tree.gid[row] !== 0;
  return losesGroup ? mode & ~SET_GROUP_ID : mode;
}

/** Devices and most attributes require root outside of a user namespace. */
function makesDevices({ owners, ids }: Abilities): boolean {
  return owners && ids?.why !== 'namespace';
}

/**
 * Returns whether a file raises the rights of users who can reach it: a device, a set-ID program,
 * or a program with capabilities (capabilities(7)).
 */
export function isPrivileged(tree: FileTree, row: number, abilities: Abilities): boolean {
  const type = tree.type[row]!;
  if (isDevice(type)) return needsTar(tree, row, abilities);
  if (type !== FILE) return false;
  if ((modeFor(tree, row, abilities) & SET_IDS) !== 0) return true;
  const records = xattrRecordsAt(tree, row);
  return records.length > 0 && abilities.tar && parsePax(records).has(CAPABILITY_XATTR);
}

/** Returns a warning that lists what these abilities omit; undefined when they omit nothing. */
export function omissionWarning(tree: FileTree, abilities: Abilities): string | undefined {
  const { tar, ids } = abilities;
  let strangers = 0;
  let setIds = 0;
  let devices = 0;
  let fifos = 0;
  let xattrs = 0;
  for (let row = 0; row < tree.count; row++) {
    const type = tree.type[row]!;
    if (type === HARD_LINK) continue;
    if (isDevice(type)) devices += makesDevices(abilities) && tar ? 0 : 1;
    else if (type === FIFO && !tar) fifos += 1;
    else {
      if (losesOwner(tree, row, abilities)) strangers += 1;
      if (modeFor(tree, row, abilities) !== tree.mode[row]) setIds += 1;
      const settable = tar ? xattrsFor(tree, row, abilities).length : 0;
      if (settable < xattrRecordsAt(tree, row).length) xattrs += 1;
    }
  }
  const unmapped = ids?.why === 'namespace' ? ' whose IDs are not mapped' : '';
  const parts = [
    ...(strangers > 0 ? [`owners of ${strangers}${unmapped}`] : []),
    ...(setIds > 0 ? [`set-user-ID or set-group-ID of ${setIds}`] : []),
    ...(devices > 0 ? [`devices: ${devices}`] : []),
    ...(fifos > 0 ? [`fifos: ${fifos}`] : []),
    ...(xattrs > 0 ? [`extended attributes of ${xattrs}`] : []),
  ];
  return parts.length === 0 ? undefined : `left out${whyOf(abilities)}: ${parts.join(', ')}`;
}

/** Returns whether the owner is lost against the user's wish: `--no-same-owner` asks for that. */
function losesOwner(tree: FileTree, row: number, abilities: Abilities): boolean {
  if (!abilities.owners) return tree.uid[row] !== abilities.uid;
  if (abilities.ids?.why !== 'namespace') return false;
  const owner = ownerFor(tree, row, abilities);
  return (owner?.uid ?? NO_ID) !== tree.uid[row] || (owner?.gid ?? NO_ID) !== tree.gid[row];
}

function whyOf({ uid, owners, tar, ids }: Abilities): string {
  const reasons = [
    ...(owners ? [] : [uid === 0 ? 'without the capability CAP_CHOWN' : 'as a user who is not root']),
    ...(ids?.why === 'namespace' ? ['in a user namespace'] : []),
    ...(ids?.why === 'not-requested' ? ['along with the owners'] : []),
    ...(tar ? [] : ['without GNU tar']),
  ];
  return reasons.length === 0 ? '' : ` ${reasons.join(' and ')}`;
}

function isDevice(type: number): boolean {
  return type === CHARACTER_DEVICE || type === BLOCK_DEVICE;
}

/**
 * Returns the IDs that root can assign to files, or undefined for all: its own without `sameOwner`,
 * and the mapped ones in a user namespace.
 */
function assignableIds(sameOwner: boolean): AssignableIds | undefined {
  if (!sameOwner)
    return { uids: [process.getuid?.() ?? 0, 1], gids: [process.getgid?.() ?? 0, 1], why: 'not-requested' };
  const [uids, gids] = [mappedIds('/proc/self/uid_map'), mappedIds('/proc/self/gid_map')];
  return uids === ALL_IDS && gids === ALL_IDS
    ? undefined
    : { uids: rangesOf(uids), gids: rangesOf(gids), why: 'namespace' };
}

/** Reads an ID map, whose lines have the first ID inside, the first ID outside and the count. */
function mappedIds(path: string): string {
  try {
    return readFileSync(path, 'latin1')
      .trim()
      .replace(/[^\S\n]+/g, ' ');
  } catch {
    return ALL_IDS; // no user namespaces, or no /proc
  }
}

function rangesOf(map: string): number[] {
  return map.split('\n').flatMap((line) => {
    const [first, , count] = line.trim().split(' ').map(Number);
    return [first!, count!];
  });
}
