import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import {
  type ImageIndex,
  type ImageManifest,
  type IndexEntry,
  MAX_INDEX_ENTRIES,
} from '../format/manifest.js';
import {
  choosePlatform,
  completePlatform,
  formatPlatform,
  normalisePlatform,
  type Platform,
} from '../format/platform.js';
import { listSome } from '../format/text.js';

/** An index may name an index, whose entries must be manifests. Deeper nests are refused. */
export const MAX_INDEX_LEVELS = 2;

/**
 * Manifests and nested indexes that are read in one search. One is enough where the index states platforms; writers that leave them out
 * write an entry for each of some platforms.
 */
const MAX_READ = 64;

/** Platforms, and entries that cannot be read, that are remembered to be told: as many as one index has, all together. */
const MAX_TOLD = MAX_INDEX_ENTRIES;

/** How one entry of an index can be of no use, while another one is. */
const OF_NO_USE: ReadonlySet<ErrorCode> = new Set([
  'metadata-malformed',
  'digest-mismatch',
  'image-not-found',
  'blob-not-found',
  'unsupported',
]);

interface AnyDocument {
  readonly manifest: ImageIndex | ImageManifest;
}

/** Reads what an index names. Both throw PullError. */
export interface IndexReader<D extends AnyDocument> {
  readonly readDocument: (digest: Digest) => Promise<D>;
  /** The platform of a config, empty where it leaves it out. */
  readonly readPlatform: (manifest: ImageManifest) => Promise<Platform>;
  readonly warn: (message: string) => void;
}

/** A manifest that an index leads to, and what it is for. */
export interface Choice<D> {
  readonly document: D & { readonly manifest: ImageManifest };
  readonly platform: Platform;
  readonly annotations?: NonNullable<IndexEntry['annotations']>;
}

/**
 * The manifest of an index, or of indexes in it, that suits `wanted` best. Entries that cannot be read are passed over. Entries without a
 * platform are read, in order, only when none with one suits: then their configs say what they are for.
 * @throws PullError `platform-not-found` naming the platforms that there are; as the reader, and as `parseManifest` for its fields, when all entries failed
 */
export async function chooseManifest<D extends AnyDocument>(
  index: ImageIndex,
  wanted: Platform,
  reader: IndexReader<D>,
): Promise<Choice<D>> {
  const search = new Search(wanted, reader);
  const found = await search.search(index, 1);
  if (found !== undefined) return found;
  throw search.failure();
}

/** The platforms that an index states; attestations, which are for none, are left out. */
export function platformsOf(index: ImageIndex): { platform: string; digest: Digest }[] {
  return index.manifests.flatMap(({ platform, digest }) =>
    platform === undefined || isForNone(platform) ? [] : [{ platform: formatPlatform(platform), digest }],
  );
}

/** Whether an entry is an attestation, as BuildKit writes them. */
function isForNone(platform: Platform): boolean {
  return formatPlatform(platform) === 'unknown/unknown';
}

/** One search through an index and the indexes in it. */
class Search<D extends AnyDocument> {
  readonly #wanted: Platform;
  readonly #reader: IndexReader<D>;
  /** The platforms that were found, by their names. */
  readonly #platforms = new Map<string, Platform>();
  #attestations = 0;
  readonly #unreadable: PullError[] = [];
  #read = 0;
  /** The first error of an entry that suits. */
  #failed: PullError | undefined;

  constructor(wanted: Platform, reader: IndexReader<D>) {
    this.#wanted = wanted;
    this.#reader = reader;
  }

  async search(index: ImageIndex, level: number): Promise<Choice<D> | undefined> {
    for (const { platform } of index.manifests) if (platform !== undefined) this.#notePlatform(platform);
    for (const problem of index.unreadable) this.#noteUnreadable(problem);
    return (await this.#stated(index, level)) ?? (await this.#unstated(index, level));
  }

  /** Why nothing was found. */
  failure(): PullError {
    if (this.#failed !== undefined) return this.#failed;
    const [unread] = this.#unreadable;
    // One that suits is an index in the index, in which there was nothing.
    const others = [...this.#platforms]
      .filter(([, platform]) => choosePlatform(this.#wanted, [{ platform }]) === undefined)
      .map(([name]) => name);
    if (unread !== undefined && others.length === 0) return unread;
    if (others.length === 0) return this.#nothingThere();
    const list = listSome(others);
    const unreadable =
      unread === undefined
        ? ''
        : `; entries that cannot be read: ${listSome([...new Set(this.#unreadable.map(({ message }) => message))])}`;
    return new PullError(
      'platform-not-found',
      `the image has no manifest for ${formatPlatform(this.#wanted)}`,
      { hint: `choose one with --platform: ${list}${unreadable}` },
    );
  }

  #nothingThere(): PullError {
    const what =
      this.#attestations === 0 ? 'nothing in its index leads to one' : 'its index has attestations only';
    return new PullError(
      'platform-not-found',
      `the image has no manifest for ${formatPlatform(this.#wanted)}: ${what}`,
      { hint: 'no platform of it can be pulled: choose another tag, or push the image again' },
    );
  }

  /** The best of the entries that state a platform; the next best where one is of no use. */
  async #stated(index: ImageIndex, level: number): Promise<Choice<D> | undefined> {
    const left = [...index.manifests];
    while (this.#read < MAX_READ) {
      const entry = choosePlatform(this.#wanted, left);
      if (entry?.platform === undefined) break;
      left.splice(left.indexOf(entry), 1);
      try {
        const found = await this.#follow(entry, level);
        if (found === undefined) continue;
        return { ...found, platform: completePlatform(found.platform ?? entry.platform, entry.platform) };
      } catch (error) {
        const failure = ofNoUse(error);
        this.#failed ??= failure;
        if (choosePlatform(this.#wanted, left) !== undefined) this.#tell(entry, failure);
      }
    }
    return undefined;
  }

  /**
   * The best of the entries without a platform, by what their configs say; one whose config says nothing suits last of all. Only the best so far
   * is kept: each can be a manifest of 4 MiB.
   */
  async #unstated(index: ImageIndex, level: number): Promise<Choice<D> | undefined> {
    let best: Choice<D> | undefined;
    let silent: Choice<D> | undefined;
    for (const entry of index.manifests) {
      if (entry.platform !== undefined) continue;
      const choice = await this.#lookInto(entry, level);
      if (choice === undefined) continue;
      const { os, architecture } = choice.platform;
      if (os === '' && architecture === '') {
        silent ??= choice;
        continue;
      }
      const platform = completePlatform(choice.platform, this.#wanted);
      this.#notePlatform(platform);
      const next = { ...choice, platform };
      best = choosePlatform(this.#wanted, best === undefined ? [next] : [best, next]);
      if (best !== undefined && isSame(best.platform, this.#wanted)) break;
    }
    return best ?? silent;
  }

  async #lookInto(entry: IndexEntry, level: number): Promise<Choice<D> | undefined> {
    try {
      const found = await this.#follow(entry, level);
      if (found === undefined) return undefined;
      const platform = found.platform ?? (await this.#reader.readPlatform(found.document.manifest));
      return { ...found, platform };
    } catch (error) {
      this.#noteUnreadable(ofNoUse(error));
      return undefined;
    }
  }

  /** The manifest that an entry leads to; its platform where an index in between knows it. */
  async #follow(
    { digest, annotations }: IndexEntry,
    level: number,
  ): Promise<(Omit<Choice<D>, 'platform'> & Partial<Choice<D>>) | undefined> {
    if (this.#read === MAX_READ) {
      throw new PullError(
        'unsupported',
        `${MAX_READ} manifests of the image index were read, and there are more whose platform it does not state`,
        { hint: 'name the manifest that you want by its digest: NAME@sha256:…' },
      );
    }
    this.#read += 1;
    const document = await this.#reader.readDocument(digest);
    if (isManifest(document)) return { document, ...(annotations && { annotations }) };
    if (level >= MAX_INDEX_LEVELS) throw tooDeep();
    if (document.manifest.kind !== 'index') return undefined;
    return this.search(document.manifest, level + 1);
  }

  #notePlatform(platform: Platform): void {
    if (isForNone(platform)) this.#attestations += 1;
    else if (this.#platforms.size < MAX_TOLD) this.#platforms.set(formatPlatform(platform), platform);
  }

  #noteUnreadable(problem: PullError): void {
    if (this.#unreadable.length < MAX_TOLD) this.#unreadable.push(problem);
  }

  #tell({ digest }: IndexEntry, { message }: PullError): void {
    this.#reader.warn(`the index names ${digest}, which is of no use (${message}); taking another one`);
  }
}

function isManifest<D extends AnyDocument>(
  document: D,
): document is D & { readonly manifest: ImageManifest } {
  return document.manifest.kind === 'manifest';
}

function isSame(one: Platform, other: Platform): boolean {
  return formatPlatform(normalisePlatform(one)) === formatPlatform(normalisePlatform(other));
}

/** The error of an entry that is of no use. @throws what is no reason to look at another one */
function ofNoUse(error: unknown): PullError {
  if (error instanceof PullError && OF_NO_USE.has(error.code)) return error;
  throw error;
}

/** The error for an index in an index in an index. */
export function tooDeep(): PullError {
  return new PullError('unsupported', `the image index is nested deeper than ${MAX_INDEX_LEVELS} levels`);
}
