import { createHash } from 'node:crypto';
import type { ExtentList } from './extents.js';
import { NotInPack, type PackReader } from './pack-reader.js';

/** The sha256 of these bytes, or undefined if the packs do not have them all. @throws PullError as PackReader */
export function digestOfExtents(reader: PackReader, extents: ExtentList): Buffer | undefined {
  const hash = createHash('sha256');
  try {
    for (const block of reader.blocks(extents)) hash.update(block);
  } catch (error) {
    if (error instanceof NotInPack) return undefined;
    throw error;
  }
  return hash.digest();
}

/** Whether the packs have these bytes, and they hash to this sha256 digest. @throws PullError as PackReader, but for bytes that are gone */
export function hasDigest(reader: PackReader, extents: ExtentList, digest: Uint8Array): boolean {
  return digestOfExtents(reader, extents)?.equals(digest) === true;
}
