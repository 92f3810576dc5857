import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import { bookWait, sharedClockMs, type Wait } from './backoff.js';
import { foreignHost, NO_ENDPOINT, type Trait } from './endpoint-state.js';
import type { RangeClient, RangeJob } from './range-client.js';
import { type Decision, isFaultOfEndpoint } from './retry-rules.js';

/** Ranges that were asked to wait at the same time come back within this time, not all at once. */
const SPREAD_MS = 1000;

/** The details of a failure besides its message. */
type FailureDetails = Pick<Decision & { readonly action: 'retry' }, 'hint' | 'sign'>;

/** One request of a chain of redirects. */
export interface Hop {
  readonly url: URL;
  /** The cached target where the chain began; undefined: at the blob's own URL. */
  readonly cachedTarget: URL | undefined;
  /** Redirects that led here. */
  readonly redirects: number;
  /** No redirect has left the blob's origin so far: it may see Authorization. */
  readonly isOnOrigin: boolean;
}

/**
 * Where a range sends its next request: at which endpoint, with which Authorization, and whether to
 * the blob's own URL or to the target of an earlier redirect. Waits for an endpoint that asked to
 * be left alone.
 */
export class RangeRoute {
  /** As `foreignHost` for a foreign blob, which has one URL and no token. */
  endpoint: number;
  /** The blob's URL at that endpoint. */
  blobUrl: string;
  /** New values of Authorization since the registry last accepted one. */
  renewals = 0;
  /** Responses in a row that asked to wait. */
  waits = 0;
  /** Requests have a Range header: the endpoint has not refused that of this range. */
  sendsRange = true;
  readonly #client: RangeClient;
  readonly #job: RangeJob;
  /** Endpoints that failed since the last byte. */
  readonly #tried = new Set<number>();
  #authorization: string | undefined;
  /** Where the last redirect led, until the request has ended. */
  #hop: Hop | undefined;
  /** The blob's URL while other ranges wait for the target that this one finds. */
  #leadsFor: string | undefined;

  constructor(client: RangeClient, job: RangeJob) {
    this.#client = client;
    this.#job = job;
    this.blobUrl = job.blob.url;
    this.endpoint = this.#isForeign ? foreignHost(this.blobUrl) : NO_ENDPOINT;
  }

  get #isForeign(): boolean {
    return this.#job.blob.anonymous === true;
  }

  /** Whether the caller would rather have the full blob than skip to its range. */
  get isPart(): boolean {
    const { blob, start, end, fullBlobInstead } = this.#job;
    return fullBlobInstead !== undefined && end - start < blob.sizeBytes;
  }

  /** The origin that may ask for credentials, if any may. */
  get origin(): string | undefined {
    return this.#isForeign ? undefined : new URL(this.blobUrl).origin;
  }

  /** Whether a redirect may lead from https to http. */
  get allowHttp(): boolean {
    const { endpoints, foreignTransport } = this.#client.options;
    return (endpoints[this.endpoint]?.transport ?? foreignTransport).allowHttpStorage === true;
  }

  /** Whether an endpoint that may have the blob is known to serve ranges. */
  get hasOthersWithRanges(): boolean {
    return !this.#isForeign && this.#client.choice.givesRanges(this.#job.blob.digest);
  }

  /** Whether the endpoint is known to answer so. */
  has(trait: Trait): boolean {
    return this.#client.choice.has(this.endpoint, trait);
  }

  /** Notes that the endpoint has answered so, or not so. */
  note(trait: Trait, holds = true): void {
    this.#client.choice.note(this.endpoint, trait, holds);
  }

  /**
   * Where to send the next request.
   * @throws PullError as `bookWait`
   */
  async next(): Promise<Hop> {
    if (this.#hop !== undefined) return this.#hop;
    await this.#waitUntilAllowed();
    let cachedTarget = await this.#findTarget();
    // The range that asked the registry on behalf of all others may have been asked to wait.
    while (await this.#waitUntilAllowed()) cachedTarget = await this.#findTarget();
    const url = cachedTarget ?? new URL(this.blobUrl);
    return { url, cachedTarget, redirects: 0, isOnOrigin: url.origin === new URL(this.blobUrl).origin };
  }

  /** The cached redirect target; undefined when this range is to ask the registry. */
  async #findTarget(): Promise<URL | undefined> {
    const { targets } = this.#client;
    if (this.#leadsFor !== undefined || this.has('one-time-targets')) return undefined;
    if (this.has('serves-itself')) return targets.get(this.blobUrl);
    const { target, leads } = await targets.find(this.blobUrl);
    if (leads) this.#leadsFor = this.blobUrl;
    return target;
  }

  /** The value of Authorization that a request may carry. */
  authorizationAt({ isOnOrigin }: Hop): string | undefined {
    return isOnOrigin ? this.#authorization : undefined;
  }

  /** Picks up the present value of Authorization: others may have renewed it. */
  async refreshToken(): Promise<void> {
    if (this.#isForeign) return;
    this.#authorization = await this.#job.events.authorization(undefined, this.endpoint);
  }

  /** Whether there is another value of Authorization to try. */
  async renewToken(): Promise<boolean> {
    this.renewals += 1;
    this.#hop = undefined;
    const refused = this.#authorization;
    this.#authorization = await this.#job.events.authorization(refused ?? '', this.endpoint);
    return this.#authorization !== undefined && this.#authorization !== refused;
  }

  redirected({ cachedTarget, redirects, isOnOrigin }: Hop, to: URL): void {
    const staysOnOrigin = isOnOrigin && to.origin === new URL(this.blobUrl).origin;
    this.#hop = { url: to, cachedTarget, redirects: redirects + 1, isOnOrigin: staysOnOrigin };
  }

  /**
   * A response without a redirect, or none at all, has ended the request: the next one starts at
   * the blob's URL, and no other range waits for this one.
   */
  requestEnded(): void {
    this.#hop = undefined;
    if (this.#leadsFor === undefined) return;
    const blobUrl = this.#leadsFor;
    this.#leadsFor = undefined;
    this.#client.targets.renewed(blobUrl);
  }

  /** The requested body begins to come from there. */
  bodyBegins({ url }: Hop): void {
    this.renewals = 0;
    this.waits = 0;
    const isRedirected = url.href !== this.blobUrl;
    this.note('serves-itself', !isRedirected);
    if (isRedirected && !this.has('one-time-targets')) this.#client.targets.found(this.blobUrl, url);
    this.requestEnded();
  }

  /** The cached target is refused. */
  async renewTarget(target: URL): Promise<void> {
    const { targets } = this.#client;
    const { blobUrl } = this;
    if (await targets.expired(blobUrl, target)) this.#leadsFor = blobUrl;
    if (targets.areSingleUse) this.note('one-time-targets');
  }

  /** New bytes have come: an endpoint that failed before may be tried again. */
  progressed(): void {
    this.#tried.clear();
  }

  succeeded(): void {
    this.#client.choice.succeeded(this.endpoint);
  }

  /**
   * A failure of the network: no miss while another endpoint is left to try.
   * @throws what `events.miss` rejects with
   */
  async failed({ url, cachedTarget }: Hop, message: string, { hint, sign }: FailureDetails): Promise<void> {
    this.#client.targets.forget(this.blobUrl, cachedTarget ?? url);
    if (await this.#chooseAnother()) return;
    await this.#job.events.miss(message, { host: url.host, hint, sign });
    await this.#startOver();
  }

  /**
   * A server asked to wait: waits, unless another endpoint serves the range meanwhile.
   * @throws PullError as `bookWait`
   */
  async wait(wait: Wait): Promise<void> {
    if (await this.#chooseAnother(wait.waitMs)) return;
    this.waits += 1;
    bookWait(this.#client.options.waits, wait, Date.now());
    await this.#backOff(wait.waitMs, wait);
    await this.#startOver();
  }

  /**
   * Whether another endpoint continues after one refused the blob, or answered as none should.
   * Where others failed that may have it, that is a miss; where they asked to wait, they are waited
   * for.
   */
  async failOver(error: unknown): Promise<boolean> {
    this.requestEnded();
    const { events, blob } = this.#job;
    if (!isFaultOfEndpoint(error) || this.#isForeign) return false;
    const { choice } = this.#client;
    const areRangesIgnored = error.code === 'unsupported';
    if (!areRangesIgnored) choice.lacks(this.endpoint, blob.digest);
    else if (!this.hasOthersWithRanges) return false;
    this.#tried.add(this.endpoint);
    if (await this.chooseEndpoint()) return true;
    if (areRangesIgnored || !choice.mayServe(blob.digest)) return false;
    if (!choice.mustWait(blob.digest, sharedClockMs())) await events.miss(error.message);
    return this.#startOver();
  }

  /** The range is in flight nowhere any more. */
  close(): void {
    this.requestEnded();
    this.#client.choice.leave(this.endpoint);
  }

  /**
   * Switches to the endpoint to use next. One that cannot even be opened is skipped.
   * @returns false when every endpoint has failed since the last byte
   * @throws PullError of the last endpoint that could not be opened, when none could or none is
   *   left that may have the blob
   */
  async chooseEndpoint(): Promise<boolean> {
    if (this.#isForeign) return this.#tried.size === 0;
    const { choice } = this.#client;
    const { digest } = this.#job.blob;
    const isFirst = this.#tried.size === 0;
    let failure: PullError | undefined;
    for (;;) {
      const endpoint = choice.next(digest, this.#tried, sharedClockMs(), this.isPart);
      if (endpoint === undefined) {
        if (failure !== undefined && (isFirst || !choice.mayServe(digest))) throw failure;
        return false;
      }
      try {
        await this.#switchTo(endpoint);
        return true;
      } catch (error) {
        if (!(error instanceof PullError)) throw error;
        failure = error;
        this.#tried.add(endpoint);
        if (error.code === 'network-hopeless') choice.failed(endpoint, sharedClockMs());
        else choice.lacks(endpoint, digest);
      }
    }
  }

  /** Whether another endpoint continues, since this one cannot now, or not for `waitMs`. */
  #chooseAnother(waitMs?: number): Promise<boolean> {
    this.#client.choice.failed(this.endpoint, sharedClockMs(), waitMs);
    this.#tried.add(this.endpoint);
    return this.chooseEndpoint();
  }

  #startOver(): Promise<boolean> {
    this.#tried.clear();
    return this.chooseEndpoint();
  }

  async #switchTo(endpoint: number): Promise<void> {
    const { choice, options } = this.#client;
    const { blob, events } = this.#job;
    let left = endpoint;
    choice.enter(endpoint);
    try {
      const path = () => `/v2/${options.endpoints[endpoint]!.repository}/blobs/${blob.digest}`;
      const blobUrl = endpoint === 0 ? blob.url : `${await events.originOf(endpoint)}${path()}`;
      this.#authorization = await events.authorization(undefined, endpoint);
      left = this.endpoint;
      this.requestEnded();
      this.endpoint = endpoint;
      this.blobUrl = blobUrl;
      this.renewals = 0;
      this.sendsRange = true;
    } finally {
      choice.leave(left);
    }
  }

  /**
   * Waits until the endpoint accepts a request of this range. A wait that a server asked of one
   * range holds for all of them, and ranges above a lowered limit come back as others end.
   * @returns whether that took any time
   */
  async #waitUntilAllowed(): Promise<boolean> {
    for (let hasWaited = false; ; hasWaited = true) {
      const waitMs = this.#client.choice.backOffMs(this.endpoint, sharedClockMs());
      // Ranges that wait for this one count as in flight: it would wait for them in turn.
      if (waitMs === undefined || (waitMs === 0 && this.#leadsFor !== undefined)) return hasWaited;
      const wait = { host: new URL(this.blobUrl).host, waitMs };
      bookWait(this.#client.options.waits, wait, Date.now());
      // The range that was asked to wait has reported that, unless it switched to another endpoint,
      // which is of no help any more.
      await this.#backOff(waitMs, waitMs > SPREAD_MS ? wait : undefined);
    }
  }

  /** Requests nothing for so long, and is not in flight meanwhile. */
  async #backOff(waitMs: number, unreported: Wait | undefined): Promise<void> {
    const resume = this.#job.events.pause(unreported);
    this.#client.choice.leave(this.endpoint);
    await sleep(waitMs + Math.random() * SPREAD_MS);
    this.#client.choice.enter(this.endpoint);
    resume();
  }
}
