import { readFileSync } from 'node:fs';
import type { GivenIds } from '../pool/messages.js';

/** How the first user namespace maps all IDs but the one that is none (user_namespaces(7)). */
const ALL_IDS = '0 0 4294967295';

/** The IDs that root can give files, or undefined for all: without `sameOwner` its own, in a user namespace those that it maps. */
export function givenIds(sameOwner: boolean): GivenIds | undefined {
  if (!sameOwner)
    return { uids: [process.getuid?.() ?? 0, 1], gids: [process.getgid?.() ?? 0, 1], why: 'asked' };
  const [uids, gids] = [mappedIds('/proc/self/uid_map'), mappedIds('/proc/self/gid_map')];
  return uids === ALL_IDS && gids === ALL_IDS
    ? undefined
    : { uids: rangesOf(uids), gids: rangesOf(gids), why: 'namespace' };
}

/** The lines of a map: first ID here, first ID outside, how many. Where there are no user namespaces all are mapped. */
function mappedIds(path: string): string {
  try {
    return readFileSync(path, 'latin1')
      .trim()
      .replace(/[^\S\n]+/g, ' ');
  } catch {
    return ALL_IDS; // another system, or a /proc of another kind
  }
}

function rangesOf(map: string): number[] {
  return map.split('\n').flatMap((line) => {
    const [first, , count] = line.trim().split(' ').map(Number);
    return [first!, count!];
  });
}
