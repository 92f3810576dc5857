import { paddingOf } from './tar-fields.js';
import { TAR_END, tarHeader } from './tar-writer.js';

/** A file on its way into an archive. */
export interface ArchiveMember {
  readonly name: string;
  readonly sizeBytes: number;
}

/** Where a member lies. */
interface PlacedMember {
  readonly header: Buffer;
  readonly headerStart: number;
  readonly contentStart: number;
}

/** An archive of which everything but the contents is known. */
export interface ArchivePlan {
  /** In the order of the members. */
  readonly members: readonly PlacedMember[];
  /** Paddings and the end are zeros: a file of this length, with headers and contents put into their places, is the archive. */
  readonly sizeBytes: number;
}

/** Plans a tar of these files, which anybody may read, with the time 0: the same files make the same bytes. */
export function planArchive(members: readonly ArchiveMember[]): ArchivePlan {
  const placed: PlacedMember[] = [];
  let at = 0;
  for (const { name, sizeBytes } of members) {
    const ids = { mode: 0o444, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
    const header = tarHeader({ type: '0', name, sizeBytes, ...ids });
    const contentStart = at + header.length;
    placed.push({ header, headerStart: at, contentStart });
    at = contentStart + sizeBytes + paddingOf(sizeBytes);
  }
  return { members: placed, sizeBytes: at + TAR_END.length };
}
