import type { Digest } from '../format/digest.js';
import { type ErrorCode, listSome, PullError } from '../format/error.js';
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

/** An index may name an index, whose entries must be manifests. Deeper nesting is refused. */
export const MAX_INDEX_LEVELS = 2;

/**
 * Manifests and nested indexes to read in one search. One is enough where the index states
 * platforms; writers that omit them write an entry for each of a few platforms.
 */
const MAX_READ = 64;

/** Platforms and unreadable entries to keep for messages: as many as one index has. */
const MAX_NOTED = MAX_INDEX_ENTRIES;

/** Errors of one entry of an index, after which another one is tried. */
const TRY_NEXT_CODES: ReadonlySet<ErrorCode> = new Set([
  'metadata-malformed',
  'digest-mismatch',
  'image-not-found',
  'blob-not-found',
  'unsupported',
]);

interface AnyDocument {
  readonly manifest: ImageIndex | ImageManifest;
}

/** Reads what an index names. `readDocument` and `readPlatform` throw PullError. */
export interface IndexReader<D extends AnyDocument> {
  readonly readDocument: (digest: Digest) => Promise<D>;
  /** The platform that a config states, empty where it states none. */
  readonly readPlatform: (manifest: ImageManifest) => Promise<Platform>;
  readonly warn: (message: string) => void;
}

/** A manifest of an index, and its platform. */
export interface Choice<D> {
  readonly document: D & { readonly manifest: ImageManifest };
  readonly platform: Platform;
  readonly annotations?: NonNullable<IndexEntry['annotations']>;
}

/**
 * Chooses the manifest of an index, or of nested indexes, that suits the requested platform best.
 * Skips unreadable entries. Reads entries without a platform, in order, only if no other suits:
 * their configs state the platform.
 * @throws PullError `platform-not-found` with the available platforms; if all entries failed, as
 *   the reader and `parseManifest`
 */
export async function chooseManifest<D extends AnyDocument>(
  index: ImageIndex,
  requested: Platform,
  reader: IndexReader<D>,
): Promise<Choice<D>> {
  const search = new Search(requested, reader);
  const found = await search.search(index, 1);
  if (found !== undefined) return found;
  throw search.failure();
}

/** The platforms that an index states, without attestations. */
export function platformsOf(index: ImageIndex): { platform: string; digest: Digest }[] {
  return index.manifests.flatMap(({ platform, digest }) =>
    platform === undefined || isAttestation(platform) ? [] : [{ platform: formatPlatform(platform), digest }],
  );
}

/** Whether this is the platform that BuildKit gives attestations. */
function isAttestation(platform: Platform): boolean {
  return formatPlatform(platform) === 'unknown/unknown';
}

class Search<D extends AnyDocument> {
  readonly #requested: Platform;
  readonly #reader: IndexReader<D>;
  /** The platforms found, by name. */
  readonly #platforms = new Map<string, Platform>();
  #attestations = 0;
  readonly #unreadable: PullError[] = [];
  #read = 0;
  /** The first error of a suitable entry. */
  #failed: PullError | undefined;

  constructor(requested: Platform, reader: IndexReader<D>) {
    this.#requested = requested;
    this.#reader = reader;
  }

  async search(index: ImageIndex, level: number): Promise<Choice<D> | undefined> {
    for (const { platform } of index.manifests) if (platform !== undefined) this.#notePlatform(platform);
    for (const problem of index.unreadable) this.#noteUnreadable(problem);
    return (await this.#stated(index, level)) ?? (await this.#unstated(index, level));
  }

  /** The error when nothing was found. */
  failure(): PullError {
    if (this.#failed !== undefined) return this.#failed;
    const [unread] = this.#unreadable;
    // A suitable platform here is that of a nested index in which nothing was found.
    const others = [...this.#platforms]
      .filter(([, platform]) => choosePlatform(this.#requested, [{ platform }]) === undefined)
      .map(([name]) => name);
    if (unread !== undefined && others.length === 0) return unread;
    if (others.length === 0) return this.#nothingFound();
    const list = listSome(others);
    const unreadable =
      unread === undefined
        ? ''
        : `; entries that cannot be read: ${listSome([...new Set(this.#unreadable.map(({ message }) => message))])}`;
    return new PullError(
      'platform-not-found',
      `the image has no manifest for ${formatPlatform(this.#requested)}`,
      { hint: `choose one with --platform: ${list}${unreadable}` },
    );
  }

  #nothingFound(): PullError {
    const what =
      this.#attestations === 0 ? 'nothing in its index leads to one' : 'its index has attestations only';
    return new PullError(
      'platform-not-found',
      `the image has no manifest for ${formatPlatform(this.#requested)}: ${what}`,
      { hint: 'no platform of it can be pulled: choose another tag, or push the image again' },
    );
  }

  /** The best of the entries that state a platform, or the next best where one fails. */
  async #stated(index: ImageIndex, level: number): Promise<Choice<D> | undefined> {
    const remaining = [...index.manifests];
    while (this.#read < MAX_READ) {
      const entry = choosePlatform(this.#requested, remaining);
      if (entry?.platform === undefined) break;
      remaining.splice(remaining.indexOf(entry), 1);
      try {
        const found = await this.#follow(entry, level);
        if (found === undefined) continue;
        return { ...found, platform: completePlatform(found.platform ?? entry.platform, entry.platform) };
      } catch (error) {
        const failure = asEntryError(error);
        this.#failed ??= failure;
        if (choosePlatform(this.#requested, remaining) !== undefined)
          this.#reader.warn(`skipping ${entry.digest} of the index: ${failure.message}`);
      }
    }
    return undefined;
  }

  /**
   * The best of the entries without a platform, by their configs; one whose config states none
   * comes last. Keeps only the best so far: each can be a manifest of 4 MiB.
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
      const platform = completePlatform(choice.platform, this.#requested);
      this.#notePlatform(platform);
      const next = { ...choice, platform };
      best = choosePlatform(this.#requested, best === undefined ? [next] : [best, next]);
      if (best !== undefined && isSame(best.platform, this.#requested)) break;
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
      this.#noteUnreadable(asEntryError(error));
      return undefined;
    }
  }

  /** The manifest of an entry, with its platform where a nested index states it. */
  async #follow(
    { digest, annotations }: IndexEntry,
    level: number,
  ): Promise<(Omit<Choice<D>, 'platform'> & Partial<Choice<D>>) | undefined> {
    if (this.#read === MAX_READ) {
      throw new PullError(
        'unsupported',
        `the image index has more than ${MAX_READ} manifests whose platform it does not state`,
        { hint: 'choose a manifest by its digest: NAME@sha256:…' },
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
    if (isAttestation(platform)) this.#attestations += 1;
    else if (this.#platforms.size < MAX_NOTED) this.#platforms.set(formatPlatform(platform), platform);
  }

  #noteUnreadable(problem: PullError): void {
    if (this.#unreadable.length < MAX_NOTED) this.#unreadable.push(problem);
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

/** The error of an entry. @throws any error after which no other entry is tried */
function asEntryError(error: unknown): PullError {
  if (error instanceof PullError && TRY_NEXT_CODES.has(error.code)) return error;
  throw error;
}

/** The error for an index nested too deeply. */
export function tooDeep(): PullError {
  return new PullError('unsupported', `the image index is nested deeper than ${MAX_INDEX_LEVELS} levels`);
}
