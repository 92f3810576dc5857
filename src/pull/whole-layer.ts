import { type ErrorCode, PullError } from '../format/error.js';
import type { PlanLimits } from '../plan/limits.js';
import { planWhole, type RawPart } from '../plan/whole.js';
import type { ExtentList } from '../store/extents.js';
import { removePack } from '../store/pack-sync.js';
import type { PackId } from '../store/paths.js';
import { BlobStream, type StreamOptions } from './blob-stream.js';
import type { KnownLayer } from './layer.js';
import { mismatch } from './repair.js';

/** Where a foreign layer failed, another of its places may do. */
const TRY_NEXT_PLACE: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'redirect-refused',
  'answer-unexpected',
  'digest-mismatch',
]);

/**
 * Pulls a layer that is one stream, or whose table of contents is not to be trusted: the blob comes by parallel ranges into
 * raw packs; right behind the front of what is there it is hashed and decoded, and what it decodes to is proven by the DiffID.
 */
export class WholeLayer {
  readonly #options: StreamOptions;
  readonly #limits: PlanLimits;
  readonly #failedBefore: PullError | undefined;
  #parts: readonly RawPart[];

  /**
   * `parts`: the plan for the first run through the blob, with what an earlier pull left of it. `failedBefore`: how the layer
   * failed when it was pulled by its table of contents; when its blob is no better, that says more of what is wrong.
   */
  constructor(
    options: StreamOptions,
    limits: PlanLimits,
    parts: readonly RawPart[],
    failedBefore?: PullError,
  ) {
    this.#options = options;
    this.#limits = limits;
    this.#parts = parts;
    this.#failedBefore = failedBefore;
  }

  /**
   * The extents that prove true.
   * @throws PullError `digest-mismatch` when blob or tar are not what manifest and config state, `metadata-malformed` when the
   * blob is right and cannot be decoded, and as fetching does
   */
  async pull(): Promise<ExtentList> {
    const { layer } = this.#options;
    const urls = [layer.blob.url, ...layer.otherUrls];
    for (const [i, url] of urls.entries()) {
      try {
        return await this.#pullFrom(url);
      } catch (error) {
        const more = error instanceof PullError && TRY_NEXT_PLACE.has(error.code) && i + 1 < urls.length;
        if (!more) throw error;
        this.#options.context.emit({ event: 'warning', message: `${error.message}; trying another place` });
        this.#parts = this.#planAnew();
      }
    }
    throw new Error('a layer without a place');
  }

  /** Raw packs have nothing but this blob's bytes. */
  async #remove(packs: Iterable<PackId>): Promise<void> {
    for (const pack of packs) await removePack(this.#options.context.paths, pack);
  }

  #planAnew(): RawPart[] {
    return planWhole(this.#options.layer.blob.sizeBytes, [], this.#limits);
  }

  /** Bytes that make another blob are fetched once more: what was kept or came on the way may be damaged. */
  async #pullFrom(url: string): Promise<ExtentList> {
    const { context, layer } = this.#options;
    const { digest } = layer.blob;
    for (let tries = 1; ; tries++) {
      const stream = new BlobStream(this.#options, url, this.#parts);
      const { extents, decoded, actual } = await stream.run();
      if (decoded.blobDigest !== digest) {
        await this.#remove(stream.rawPacks);
        const got = decoded.blobDigest ?? 'bytes that are gone';
        const message = `the blob of layer ${digest} does not match its digest: got ${got}`;
        if (this.#failedBefore !== undefined) throw this.#failedBefore;
        if (tries > 1) throw wrongBlob(digest, `${message}, twice`);
        context.emit({ event: 'warning', message: `${message}; fetching it once more` });
        this.#parts = this.#planAnew();
        continue;
      }
      if (decoded.problem !== undefined) throw notDecodable(layer, decoded.problem);
      if (actual !== layer.diffId) throw mismatch(layer, actual);
      await this.#remove(stream.rawPacks);
      return extents;
    }
  }
}

function wrongBlob(layer: string, message: string): PullError {
  const hint =
    'what the registry or a proxy before it holds is damaged: ask whoever runs it, or pull from another one';
  return new PullError('digest-mismatch', message, { layer, hint });
}

function notDecodable(
  { blob, compression }: KnownLayer,
  problem: { message: string; blobAt: number },
): PullError {
  const message = `layer ${blob.digest} is no good ${compression}: ${problem.message}, at byte ${problem.blobAt} of the blob`;
  const hint = 'the image was built or pushed wrongly: rebuild it, or pull another version';
  return new PullError('metadata-malformed', message, { layer: blob.digest, hint });
}
