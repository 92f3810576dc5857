import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError, withHint } from '../format/error.js';
import type { Compression } from '../format/layer-format.js';
import { type BlobPart, type OpaqueBlob, planOpaque, totalsOf } from '../plan/opaque.js';
import type { PlanLimits } from '../plan/spans.js';
import type { DecodeBlobResult, StreamFault } from '../pool/messages.js';
import { MAX_BLOB_TRIES } from '../registry/endpoint-state.js';
import type { BlobSource } from '../registry/range-client.js';
import { noCachedContents } from '../store/cached-contents.js';
import type { ExtentList } from '../store/extents.js';
import { removePack } from '../store/pack-files.js';
import type { PackId } from '../store/paths.js';
import { fromAnyUrl, ignoresRanges, wrongBytesHint } from './blob-locations.js';
import { type KnownLayer, warnOfType } from './layer.js';
import { OpaqueAttempt, type OpaqueOptions } from './opaque-attempt.js';
import { lookUpBlobParts } from './prepare-layers.js';
import { mismatch } from './prove-layer.js';

/** Errors of a blob that arrived in full; its raw packs are of no use to the next pull. */
const WRONG_BLOB: ReadonlySet<ErrorCode> = new Set(['digest-mismatch', 'metadata-malformed']);

/** The outcome of an opaque layer; `resumedBytes` of its blob came from an earlier pull. */
interface OpaqueResult {
  readonly extents: ExtentList;
  readonly compression: Compression;
  readonly resumedBytes: number;
}

/**
 * Pulls an opaque layer, or one whose table of contents is wrong: fetches the blob by parallel
 * ranges into raw packs, hashes and decodes it right behind the front, and verifies what it decodes
 * to by the DiffID.
 */
export class OpaqueLayer {
  readonly #options: OpaqueOptions;
  readonly #limits: PlanLimits;
  readonly #failedBefore: PullError | undefined;
  #plan: OpaqueBlob;
  /** What the plan has to fetch, and what was fetched of the layer before it. */
  #planned: { readonly fetchBytes: number; readonly fetchedBefore: number };
  /**
   * False when this pull left the cached parts, from a server that sent the full blob for a range.
   */
  #isResumed: boolean;
  readonly #blobPacks = new Set<PackId>();

  /**
   * `plan` is that of the first attempt, with what an earlier pull left of the blob. `failedBefore`
   * is the error of the layer as a chunked one: if the blob is wrong, too, it says more, except
   * `unsupported`.
   */
  constructor(options: OpaqueOptions, limits: PlanLimits, plan: OpaqueBlob, failedBefore?: PullError) {
    this.#options = options;
    this.#limits = limits;
    this.#plan = plan;
    this.#planned = this.#snapshot();
    this.#isResumed = failedBefore?.code !== 'unsupported';
    this.#failedBefore = this.#isResumed ? failedBefore : undefined;
  }

  /**
   * Returns the verified extents.
   * @throws PullError `digest-mismatch` when the blob or the tar has another digest than manifest
   *   and config state, `metadata-malformed` when the right blob cannot be decoded, and as fetching
   *   does
   */
  async pull(): Promise<OpaqueResult> {
    const { layer, context } = this.#options;
    try {
      const urls = [layer.blob.url, ...layer.otherUrls];
      const { extents, compression } = await fromAnyUrl(urls, context.emit, (url, isRetry) => {
        if (isRetry) this.#replan(this.#emptyPlan());
        return this.#pullFrom(url);
      });
      await this.#removeBlobPacks();
      const { resumedBytes } = totalsOf(this.#plan, this.#limits);
      return { extents, compression, resumedBytes: this.#isResumed ? resumedBytes : 0 };
    } catch (error) {
      if (error instanceof PullError && WRONG_BLOB.has(error.code)) await this.#removeBlobPacks();
      throw error;
    }
  }

  #snapshot() {
    const { fetcher, row } = this.#options;
    const { fetchBytes } = totalsOf(this.#plan, this.#limits);
    return { fetchBytes, fetchedBefore: fetcher.figures[row]!.fetchedBytes };
  }

  /** Replaces the plan, and adjusts the total to receive. */
  #replan(plan: OpaqueBlob): void {
    const { fetchBytes, fetchedBefore } = this.#planned;
    this.#plan = plan;
    this.#planned = this.#snapshot();
    const notFetchedBytes = fetchBytes - (this.#planned.fetchedBefore - fetchedBefore);
    const { context, layer } = this.#options;
    context.addTotal(this.#planned.fetchBytes - notFetchedBytes, layer.diffId);
  }

  #emptyPlan(): OpaqueBlob {
    return { blobBytes: this.#options.layer.blob.sizeBytes, cached: [] };
  }

  /**
   * The parts to fetch: a single one without `ranges`, or where the first endpoint ignores ranges.
   */
  #parts(url: string, ranges: boolean): Iterator<BlobPart, void> {
    const { context, layer } = this.#options;
    const { blobBytes } = this.#plan;
    const isOnDisk = totalsOf(this.#plan, this.#limits).fetchBytes === 0;
    if (isOnDisk || (ranges && !ignoresRanges(context, { ...layer.blob, url })))
      return planOpaque(this.#plan, this.#limits);
    this.#replan(this.#emptyPlan());
    return [{ blobStart: 0, blobEnd: blobBytes }].values();
  }

  /**
   * Fetches a wrong blob once more, as cached parts or bytes on the way may be damaged, and again
   * as long as there is an endpoint that has not sent any of it. For a layer that failed before,
   * the first attempt counts as the second, unless it used cached parts. A prune that had begun
   * before can delete contents that the layer shares before it is verified: the second attempt
   * shares none.
   */
  async #pullFrom(url: string): Promise<Omit<OpaqueResult, 'resumedBytes'>> {
    const { context, layer } = this.#options;
    const { digest, anonymous } = layer.blob;
    let options = this.#options;
    let ranges = true;
    for (let tries = 1; ; tries++) {
      const attempt = new OpaqueAttempt(options, url, this.#parts(url, ranges));
      let outcome: Awaited<ReturnType<OpaqueAttempt['run']>>;
      try {
        outcome = await attempt.run();
      } catch (error) {
        if (!ranges || !(error instanceof PullError) || error.code !== 'unsupported') throw error;
        // The server ignores ranges; the full blob that it sent for the first one is on disk.
        ranges = false;
        await attempt.ended();
        await this.#startOver(attempt);
        this.#replan({ ...this.#emptyPlan(), cached: await lookUpBlobParts(context, digest) });
        this.#isResumed = false;
        continue;
      } finally {
        for (const pack of attempt.blobPacks) this.#blobPacks.add(pack);
      }
      const { extents, decoded, actual } = outcome;
      if (decoded.blobDigest === digest) {
        if (actual === layer.diffId && decoded.problem === undefined) {
          for (const pack of attempt.ownPacks) context.scrap.delete(pack);
          warnOfType(context.emit, layer, decoded.compression);
          return { extents, compression: decoded.compression };
        }
        const isShared = extents.packs.some((pack) => pack !== decoded.pack);
        if (actual !== null || decoded.problem !== undefined || !isShared)
          throw wrongTar(layer, decoded, actual, this.#failedBefore);
        context.emit({
          event: 'warning',
          message: `the store lost contents that layer ${digest} shares; fetching the layer again`,
        });
        options = { ...options, cached: async () => noCachedContents() };
        await this.#startOver(attempt);
        continue;
      }
      const got = decoded.blobDigest ?? 'missing bytes';
      const message = `the blob of layer ${digest} does not match its digest: got ${got}`;
      const { sender } = attempt;
      if (sender !== undefined) context.endpoints.lacks(sender, digest);
      const mayBeElsewhere = anonymous !== true && sender !== undefined && context.endpoints.mayServe(digest);
      const elsewhere = mayBeElsewhere && tries < MAX_BLOB_TRIES;
      const usedCached = this.#plan.cached.length > 0;
      const isLast = tries > 1 || (this.#failedBefore !== undefined && !usedCached);
      if (isLast && !elsewhere) throw wrongBlob({ ...layer.blob, url }, message, this.#failedBefore);
      context.emit({ event: 'warning', message: `${message}; fetching it again` });
      await this.#startOver(attempt);
    }
  }

  /** Deletes what the last attempt decoded. */
  async #startOver({ ownPacks }: OpaqueAttempt): Promise<void> {
    const { paths, packs, scrap } = this.#options.context;
    for (const pack of ownPacks) {
      await removePack(paths, pack);
      packs.delete(pack);
      scrap.delete(pack);
    }
    this.#replan(this.#emptyPlan());
  }

  /**
   * Raw packs contain only this blob. Called at its end, as workers go on writing to them until
   * then.
   */
  async #removeBlobPacks(): Promise<void> {
    for (const pack of this.#blobPacks) await removePack(this.#options.context.paths, pack);
  }
}

function wrongBlob(blob: BlobSource, message: string, failedBefore: PullError | undefined): unknown {
  const hint = wrongBytesHint(blob);
  if (failedBefore !== undefined) return withHint(failedBefore, hint);
  return new PullError('digest-mismatch', `${message}, twice`, { layer: blob.digest, hint });
}

function wrongTar(
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
  'the blob matches the manifest, but the config states the DiffID of another tar: rebuild the image, or pull another version';

function notDecodable({ blob }: KnownLayer, compression: Compression, fault: StreamFault): PullError {
  const { code, message, blobAt } = fault;
  const sentence = `layer ${blob.digest} (${compression}) ${message}, at or after byte ${blobAt} of the blob`;
  const usualHint =
    code === 'unsupported'
      ? 'install the program zstd or a newer Node, or push the image with smaller windows'
      : 'the image was built or pushed incorrectly: rebuild it, or pull another version';
  return new PullError(code, sentence, { layer: blob.digest, hint: fault.hint ?? usualHint });
}
