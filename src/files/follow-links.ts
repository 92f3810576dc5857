import { lstatSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { dirname, isAbsolute, join, parse, resolve, sep } from 'node:path';
import { PullError } from '../format/error.js';
import { statName } from './open-file.js';

/** As many as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** A link that neither root nor this user made. */
interface ForeignLink {
  readonly path: string;
  readonly uid: number;
}

/**
 * The path without links of the place that a path leads to; what is not there yet keeps its name. Links of root and of this user
 * are followed. A link of another user is followed only to a directory, or a file in one, of that same user: whoever may make a link
 * does not decide what is written into other directories. A link to nothing, and one that stands for something without a path (a pipe
 * in `/proc/self/fd`), keeps its name, too. Where the system tells no owners (Windows) the path is returned as it is.
 * @throws PullError `option-malformed` for a link of another user that leads elsewhere; the system's own errors, ELOOP after 40 links
 */
export function followLinks(path: string): string {
  const whole = resolve(path);
  if (process.geteuid === undefined) return whole;
  return new Walk(process.geteuid()).from(parse(whole).root, whole);
}

class Walk {
  readonly #own: number;
  #links = 0;
  /** The last link of another user on the way to where the walk is: `..` leads to a directory of their choice. */
  #foreign: ForeignLink | undefined;
  /** How many links of other users the walk is inside of: where those end is looked at, so their own `..` need not be. */
  #depth = 0;

  constructor(own: number) {
    this.#own = own;
  }

  /** Where `path` leads to from a directory whose path has no links. */
  from(directory: string, path: string): string {
    let place = directory;
    if (isAbsolute(path)) {
      place = parse(path).root;
      this.#foreign = undefined;
    }
    for (const step of path.split(sep)) {
      if (step === '' || step === '.') continue;
      if (step === '..') {
        place = dirname(place);
        if (this.#foreign !== undefined && this.#depth === 0) requireTheirs(this.#foreign, place);
      } else {
        place = this.#next(join(place, step));
      }
    }
    return place;
  }

  #next(path: string): string {
    const stat = statName(path);
    if (stat?.isSymbolicLink() !== true) return path;
    this.#links += 1;
    if (this.#links > MAX_LINKS) throw tooManyLinks(path);
    const isForeign = stat.uid !== 0 && stat.uid !== this.#own;
    if (isForeign) this.#depth += 1;
    const end = this.from(dirname(path), readlinkSync(path));
    const isSame = isSamePlace(path, end);
    if (!isForeign) return isSame ? end : path;
    this.#depth -= 1;
    const link = { path, uid: stat.uid };
    if (!isSame) throw leadsAway(link, end, undefined);
    requireTheirs(link, end);
    this.#foreign = link;
    return end;
  }
}

/** Whether the system follows the link to what is at `end`: not so for a link to nothing, nor for some links of `/proc`. */
function isSamePlace(link: string, end: string): boolean {
  const [followed, found] = [statIfThere(() => statSync(link)), statIfThere(() => lstatSync(end))];
  return (
    followed !== undefined && found !== undefined && followed.ino === found.ino && followed.dev === found.dev
  );
}

/** What `look` finds; undefined when nothing is there. @throws the system's own errors */
export function statIfThere(look: () => Stats): Stats | undefined {
  try {
    return look();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** @throws PullError `option-malformed` unless the directory, or that of the file, belongs to the user who made the link */
function requireTheirs(link: ForeignLink, end: string): void {
  const stat = lstatSync(end);
  const { uid } = stat.isDirectory() ? stat : lstatSync(dirname(end));
  if (uid !== link.uid) throw leadsAway(link, end, uid);
}

function leadsAway(link: ForeignLink, end: string, uid: number | undefined): PullError {
  const whose = uid === undefined ? 'where nothing is' : `which belongs to user ${uid}`;
  return new PullError(
    'option-malformed',
    `the symbolic link ${link.path} of user ${link.uid} leads to ${end}, ${whose}`,
    {
      hint: `Name the place that you mean by its own path${uid === undefined ? '' : `: ${end}, if it is that`}.`,
    },
  );
}

function tooManyLinks(path: string): Error {
  return Object.assign(new Error(`ELOOP: too many symbolic links, ${path}`), { code: 'ELOOP' });
}
