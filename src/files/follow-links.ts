import { lstatSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { dirname, isAbsolute, join, parse, resolve, sep } from 'node:path';
import { PullError } from '../format/error.js';
import { statName } from './open-file.js';

/** The number Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** A link that neither root nor this user created. */
interface ForeignLink {
  readonly path: string;
  readonly uid: number;
}

/**
 * Returns the path without links to what `path` leads to; what does not exist keeps its name. Links
 * of root and of this user are followed. A link of another user is followed only to a directory of
 * that user, or a file in one: a user who may create a link must not decide what is written into other
 * directories. A link to nothing, and one that stands for something without a path (a pipe in
 * `/proc/self/fd`), keeps its name. Where files have no owners (Windows) the path is returned
 * unchanged.
 * @throws PullError `option-malformed` for a link of another user that leads elsewhere; the
 *   system's own errors, ELOOP after 40 links
 */
export function followLinks(path: string): string {
  const whole = resolve(path);
  if (process.geteuid === undefined) return whole;
  return new Walk(process.geteuid()).from(parse(whole).root, whole);
}

class Walk {
  readonly #own: number;
  #links = 0;
  /**
   * The last link of another user on the path so far: `..` behind it leads to a directory of their
   * choice.
   */
  #foreign: ForeignLink | undefined;
  /**
   * The number of links of other users being followed. Where those end is checked, so `..` inside
   * them need not be.
   */
  #depth = 0;

  constructor(own: number) {
    this.#own = own;
  }

  /** Returns where `path` leads from a directory whose path has no links. */
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

/**
 * Whether the system follows the link to `end`: not for a link to nothing, nor for some links of
 * `/proc`.
 */
function isSamePlace(link: string, end: string): boolean {
  const [followed, found] = [statIfThere(() => statSync(link)), statIfThere(() => lstatSync(end))];
  return (
    followed !== undefined && found !== undefined && followed.ino === found.ino && followed.dev === found.dev
  );
}

/**
 * Returns what `look` returns, or undefined if nothing is there. @throws the system's own errors
 */
export function statIfThere(look: () => Stats): Stats | undefined {
  try {
    return look();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/**
 * @throws PullError `option-malformed` unless the directory, or that of the file, belongs to the
 *   user who made the link
 */
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
