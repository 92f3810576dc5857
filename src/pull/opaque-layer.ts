import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError, withHint } from '../format/error.js';
import type { Compression } from '../format/layer-format.js';
import { type OpaqueBlob, planOneRequest, planOpaque, totalsOf } from '../plan/opaque.js';
import type { PlanLimits } from '../plan/spans.js';
import type { BlobSource, DecodeBlobResult, StreamFault } from '../pool/messages.js';
import { MAX_BLOB_TRIES } from '../registry/endpoint-choice.js';
import { noCachedContents } from '../store/cached-contents.js';
import type { ExtentList } from '../store/extents.js';
import { removePack } from '../store/pack-sync.js';
import type { PackId } from '../store/paths.js';
import { fromAnyUrl, ignoresRanges, wrongBytesHint } from './blob-locations.js';
import { type KnownLayer, warnOfType } from './layer.js';
import { OpaqueAttempt, type StreamOptions } from './opaque-attempt.js';
import { lookUpBlobRuns } from './plan-layers.js';
import { mismatch } from './repair.js';

const OF_NO_USE: ReadonlySet<ErrorCode> = new Set(['digest-mismatch', 'metadata-malformed']);

/** A layer that was pulled as one stream, what its blob is, and how much of that an earlier pull had left. */
interface OpaqueResult {
  readonly extents: ExtentList;
  readonly compression: Compression;
  readonly resumedBytes: number;
}

/**
 * Pulls a layer that is one stream, or whose table of contents is not to be trusted: the blob comes by parallel ranges into
 * raw packs; right behind the front of what is there it is hashed and decoded, and what it decodes to is proven by the DiffID.
 */
export class OpaqueLayer {
  readonly #options: StreamOptions;
  readonly #limits: PlanLimits;
  readonly #failedBefore: PullError | undefined;
  #plan: OpaqueBlob;
  /** What the plan had to fetch, and what had been fetched of the layer before. */
  #planned: { readonly fetchBytes: number; readonly before: number };
  /** Whether an earlier pull left what is there of the blob, rather than this one, when it asked for a range and got the whole. */
  #isResumed: boolean;
  readonly #blobPacks = new Set<PackId>();

  /**
   * `plan`: for the first run through the blob, with what an earlier pull left of it. `failedBefore`: how the layer
   * failed when it was pulled by its table of contents; when its blob is no better, that says more of what is wrong, unless
   * it was only more than we do.
   */
  constructor(options: StreamOptions, limits: PlanLimits, plan: OpaqueBlob, failedBefore?: PullError) {
    this.#options = options;
    this.#limits = limits;
    this.#plan = plan;
    this.#planned = this.#noted();
    this.#isResumed = failedBefore?.code !== 'unsupported';
    this.#failedBefore = this.#isResumed ? failedBefore : undefined;
  }

  /**
   * The extents that prove true, and of what blob they are.
   * @throws PullError `digest-mismatch` when blob or tar are not what manifest and config state, `metadata-malformed` when the
   * blob is right and cannot be decoded, and as fetching does
   */
  async pull(): Promise<OpaqueResult> {
    try {
      const { extents, compression } = await this.#pullFromAnywhere();
      await this.#removeBlobPacks();
      const { resumedBytes } = totalsOf(this.#plan, this.#limits);
      return { extents, compression, resumedBytes: this.#isResumed ? resumedBytes : 0 };
    } catch (error) {
      // All of the blob was there, and was of no use.
      if (error instanceof PullError && OF_NO_USE.has(error.code)) await this.#removeBlobPacks();
      throw error;
    }
  }

  #pullFromAnywhere(): Promise<Omit<OpaqueResult, 'resumedBytes'>> {
    const { layer, context } = this.#options;
    return fromAnyUrl([layer.blob.url, ...layer.otherUrls], context.emit, (url, again) => {
      if (again) this.#replan(this.#planAnew());
      return this.#pullFrom(url);
    });
  }

  #noted() {
    const { fetcher, index } = this.#options;
    const { fetchBytes } = totalsOf(this.#plan, this.#limits);
    return { fetchBytes, before: fetcher.figures[index]!.fetchedBytes };
  }

  /** The plan becomes another one, and what is to be received with it. */
  #replan(plan: OpaqueBlob): void {
    const { fetchBytes, before } = this.#planned;
    this.#plan = plan;
    this.#planned = this.#noted();
    const notFetchedBytes = fetchBytes - (this.#planned.before - before);
    this.#options.context.addTotal(this.#planned.fetchBytes - notFetchedBytes);
  }

  #planAnew(): OpaqueBlob {
    return { blobBytes: this.#options.layer.blob.sizeBytes, cached: [] };
  }

  /** What to fetch; without `ranges`, or where the first endpoint is known to give none, all by one request. */
  #parts(url: string, ranges: boolean) {
    const { context, layer } = this.#options;
    const { blobBytes } = this.#plan;
    const isThere = totalsOf(this.#plan, this.#limits).fetchBytes === 0;
    if (isThere || (ranges && !ignoresRanges(context, { ...layer.blob, url })))
      return planOpaque(this.#plan, this.#limits);
    this.#replan(this.#planAnew());
    return planOneRequest(blobBytes);
  }

  /**
   * Bytes that make another blob are fetched once more, as what was kept or came on the way may be damaged, and as long as
   * an endpoint is left that has sent none of them. Of a layer that failed before, that was the second time, but for what was
   * kept. What a layer shares can be gone before it is proven (a prune that had begun before): it shares nothing the second time.
   */
  async #pullFrom(url: string): Promise<Omit<OpaqueResult, 'resumedBytes'>> {
    const { context, layer } = this.#options;
    const { digest, anonymous } = layer.blob;
    let options = this.#options;
    let ranges = true;
    for (let tries = 1; ; tries++) {
      const stream = new OpaqueAttempt(options, url, this.#parts(url, ranges));
      let outcome: Awaited<ReturnType<OpaqueAttempt['run']>>;
      try {
        outcome = await stream.run();
      } catch (error) {
        if (!ranges || !(error instanceof PullError) || error.code !== 'unsupported') throw error;
        // The server gives no ranges; what it sent instead of the first is there as a whole.
        ranges = false;
        await stream.ended();
        await this.#beginAgain(stream);
        this.#replan({ ...this.#planAnew(), cached: await lookUpBlobRuns(context, digest) });
        this.#isResumed = false;
        continue;
      } finally {
        for (const pack of stream.blobPacks) this.#blobPacks.add(pack);
      }
      const { extents, decoded, actual } = outcome;
      if (decoded.blobDigest === digest) {
        if (actual === layer.diffId && decoded.problem === undefined) {
          for (const pack of stream.ownPacks) context.scrap.delete(pack);
          warnOfType(context.emit, layer, decoded.compression);
          return { extents, compression: decoded.compression };
        }
        const isShared = extents.packs.some((pack) => pack !== decoded.pack);
        if (actual !== null || decoded.problem !== undefined || !isShared)
          throw notTheTar(layer, decoded, actual, this.#failedBefore);
        context.emit({
          event: 'warning',
          message: `bytes of the store that layer ${digest} shares are gone; fetching it once more`,
        });
        options = { ...options, held: async () => noCachedContents() };
        await this.#beginAgain(stream);
        continue;
      }
      const got = decoded.blobDigest ?? 'bytes that are gone';
      const message = `the blob of layer ${digest} does not match its digest: got ${got}`;
      const { sender } = stream;
      if (sender !== undefined) context.endpoints.lacks(sender, digest);
      const mayBeHad = anonymous !== true && sender !== undefined && context.endpoints.mayBeHad(digest);
      const elsewhere = mayBeHad && tries < MAX_BLOB_TRIES;
      const wasKept = this.#plan.cached.length > 0;
      const isLast = tries > 1 || (this.#failedBefore !== undefined && !wasKept);
      if (isLast && !elsewhere) throw wrongBlob({ ...layer.blob, url }, message, this.#failedBefore);
      context.emit({ event: 'warning', message: `${message}; fetching it once more` });
      await this.#beginAgain(stream);
    }
  }

  /** What the last run decoded is of no use to the next. */
  async #beginAgain({ ownPacks }: OpaqueAttempt): Promise<void> {
    const { paths, packs, scrap } = this.#options.context;
    for (const pack of ownPacks) {
      await removePack(paths, pack);
      packs.delete(pack);
      scrap.delete(pack);
    }
    this.#replan(this.#planAnew());
  }

  /** Raw packs have nothing but this blob's bytes; not before its end, as workers go on writing to them. */
  async #removeBlobPacks(): Promise<void> {
    for (const pack of this.#blobPacks) await removePack(this.#options.context.paths, pack);
  }
}

/** What is wrong with a blob that came twice and is another one. */
function wrongBlob(blob: BlobSource, message: string, failedBefore: PullError | undefined): unknown {
  const hint = wrongBytesHint(blob);
  if (failedBefore !== undefined) return withHint(failedBefore, hint);
  return new PullError('digest-mismatch', `${message}, twice`, { layer: blob.digest, hint });
}

/** What is wrong with a blob that has its digest. */
function notTheTar(
  layer: KnownLayer,
  { problem, compression }: DecodeBlobResult,
  actual: Digest | null,
  failedBefore: PullError | undefined,
): unknown {
  if (problem !== undefined) return failedBefore ?? notDecodable(layer, compression, problem);
  const error = failedBefore ?? mismatch(layer, actual);
  return actual === null ? error : withHint(error, WRONG_DIFF_ID);
}

const WRONG_DIFF_ID =
  'the blob is the one that the manifest names, but the config states the DiffID of another tar: rebuild the image, or pull another version';

function notDecodable({ blob }: KnownLayer, compression: Compression, fault: StreamFault): PullError {
  const { code, message, blobAt } = fault;
  const sentence = `layer ${blob.digest} (${compression}) ${message}, at or behind byte ${blobAt} of the blob`;
  const usual =
    code === 'unsupported'
      ? 'install the program zstd or a newer Node, or push the image with smaller windows'
      : 'the image was built or pushed wrongly: rebuild it, or pull another version';
  return new PullError(code, sentence, { layer: blob.digest, hint: fault.hint ?? usual });
}
