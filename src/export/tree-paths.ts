import { PullError } from '../format/error.js';
import { quoteBytes } from '../format/text.js';

/** Items in the order of how deep their paths are, and of their bytes: whatever the order in which they come. */
export function shallowFirst<T>(items: readonly T[], pathOf: (item: T) => string): T[] {
  const keyed = items.map((item) => {
    const parts = partsOf(pathOf(item));
    return { item, depth: parts.length, path: parts.join('/') };
  });
  keyed.sort((a, b) => a.depth - b.depth || (a.path < b.path ? -1 : Number(a.path > b.path)));
  return keyed.map(({ item }) => item);
}

/** The names that a path has after `.` and `..` are worked off; `..` at the root is the root. */
export function partsOf(path: string): string[] {
  return workedOff(path.split('/'));
}

/** The same of a path in parts. */
export function workedOff(path: readonly string[]): string[] {
  const parts: string[] = [];
  for (const part of path) {
    if (part === '..') parts.pop();
    else if (isName(part)) parts.push(part);
  }
  return parts;
}

/** Whether a part of a path is a name, `..` included. */
export function isName(part: string): boolean {
  return part !== '' && part !== '.';
}

/** A path for a message. */
export function quote(path: string): string {
  return quoteBytes(Buffer.from(path, 'latin1'));
}

/** The error for layers whose entries cannot be what they say. */
export function noFileSystem(what: string, hint?: string): PullError {
  return new PullError('metadata-malformed', `the layers make no file system: ${what}`, { hint });
}
