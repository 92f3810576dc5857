import { listStore } from '../../api/store.js';
import type { StoreArguments } from '../commands/store.js';
import { formatBytes } from '../format-text.js';
import { jsonLine, printable } from '../printable.js';
import { type Column, formatTable } from '../table.js';

const IMAGE_COLUMNS: readonly Column[] = [
  { title: 'IMAGE' },
  { title: 'DIGEST' },
  { title: 'PLATFORM' },
  { title: 'SIZE', numeric: true },
  { title: 'SHARED', numeric: true },
  { title: 'LAST USED' },
];
const BLOB_COLUMNS: readonly Column[] = [{ title: 'UNFINISHED BLOB' }, { title: 'RECEIVED', numeric: true }];

/** `2026-01-31 12:05 UTC` of an ISO 8601 time. */
function timeText(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

/** `zpull store ls`: prints the images and what pulls that were broken off have left. */
export async function runList({ store, json, warn }: StoreArguments): Promise<number> {
  const incomplete = (image: string, platform: string) => {
    process.stderr.write(`zpull: ${printable(image)} for ${printable(platform)} is not whole any more\n`);
    process.stderr.write('hint: pull it again: only what is missing is fetched\n');
  };
  const listing = listStore({ store, warn, ...(!json && { incomplete }) });
  if (json) {
    process.stdout.write(jsonLine(listing));
    return 0;
  }
  const images = listing.images.map(({ image, digest, platform, sizeBytes, sharedBytes, lastUsed }) => {
    return [image, digest, platform, formatBytes(sizeBytes), formatBytes(sharedBytes), timeText(lastUsed)];
  });
  process.stdout.write(formatTable(IMAGE_COLUMNS, images));
  if (listing.brokenOff.length > 0) {
    const blobs = listing.brokenOff.map(({ blob, bytes }) => [blob, formatBytes(bytes)]);
    process.stdout.write(`\n${formatTable(BLOB_COLUMNS, blobs)}`);
  }
  return 0;
}
