import { randomUUID } from 'node:crypto';
import { createCounters } from '../pool/counters.js';
import type { NetworkSetup, WorkerSetup } from '../pool/messages.js';
import { createRateLimit } from '../pool/rate-limit.js';
import {
  Concurrency,
  createLimits,
  createWaitBudget,
  sharedClockMs,
  type Wait,
} from '../registry/backoff.js';
import { createEndpointState } from '../registry/endpoint-choice.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { readRegistries } from '../registry/registries-conf.js';
import { networkEnvironment } from '../registry/transport.js';
import {
  checkAccess,
  createSession,
  type ImageSource,
  isLocal,
  parseSource,
  type SourceOptions,
  USER_AGENT,
} from './image-source.js';
import { Stop } from './pull-context.js';
import { Progress } from './pull-events.js';
import { type PullOptions, resolveOptions, type Settings } from './pull-options.js';
import { KarmaRetryPolicy } from './retry-policy.js';

/**
 * How often received bytes are added to karma, from which moment on they fade: a twentieth of the
 * default time constant.
 */
const DRAIN_MS = 50;

/**
 * One pull or copy, from opening to closing: its settings, requests of the main thread, the limits
 * that the main thread and the workers share, its events, and the stop that ends it early.
 */
export class PullSession {
  readonly settings: Settings;
  readonly source: ImageSource;
  readonly stop = new Stop();
  readonly progress: Progress;
  readonly retries: KarmaRetryPolicy;
  readonly concurrency: Concurrency;
  /** Shared by all threads. */
  readonly setup: Pick<WorkerSetup, 'counters' | 'rateLimit'>;
  readonly #access: SourceOptions;
  readonly #draining: NodeJS.Timeout;
  readonly #unfollow: () => void;
  readonly #endpointState = createEndpointState();
  readonly #waits = createWaitBudget();
  #lastWords: string | undefined;
  #registry: MirroredSession | undefined;

  /**
   * Opens a session; sends nothing yet. `interrupted` is the message when the options' signal
   * aborts.
   * @throws PullError as `resolveOptions`, `parseSource` and `readRegistries`
   */
  static async open(reference: string, options: PullOptions, interrupted: string): Promise<PullSession> {
    const registries = await readRegistries(process.env);
    const settings = resolveOptions(options);
    return new PullSession(parseSource(reference, registries), settings, options, interrupted);
  }

  private constructor(source: ImageSource, settings: Settings, options: PullOptions, interrupted: string) {
    this.source = source;
    // Looking into a layout is cheap, and otherwise the store could fall behind the layout.
    const asksAlways = isLocal(source) && settings.policy === 'missing';
    this.settings = asksAlways ? { ...settings, policy: 'always' } : settings;
    const counters = createCounters();
    this.progress = new Progress(counters, options.onEvent, (error) => this.stop.now(error));
    const { limitRate, connections, patienceMs } = settings;
    this.setup = {
      counters,
      ...(limitRate === undefined ? {} : { rateLimit: createRateLimit(limitRate) }),
    };
    this.concurrency = new Concurrency(createLimits(1, connections));
    this.retries = new KarmaRetryPolicy({
      tauMs: patienceMs,
      counters,
      stop: this.stop,
      now: () => performance.now(),
      onWait: (wait) => this.#reportWait(wait),
      onMiss: (message) => this.progress.emit({ event: 'miss', message }),
    });
    this.#access = {
      settings: this.settings,
      retryPolicy: this.retries,
      waits: this.#waits,
      tokens: options.tokens ?? new Map(),
      signal: options.signal,
      emit: this.progress.emit,
    };
    this.#draining = setInterval(() => this.retries.drain(), DRAIN_MS).unref();
    this.#unfollow = this.stop.follow(options.signal, interrupted);
  }

  /**
   * Reports the server's own words once: the pull may wait for minutes before it fails with them.
   */
  #reportWait({ host, waitMs, words }: Wait): void {
    if (words !== undefined && words !== this.#lastWords) {
      this.#lastWords = words;
      this.progress.emit({ event: 'warning', message: `${host} asks to wait and says ${words}` });
    }
    if (!this.concurrency.throttled(waitMs, sharedClockMs())) return;
    this.progress.emit({ event: 'waiting', host, waitMs });
  }

  /** The registry of the image, or the layout; created on first use. */
  get registry(): MirroredSession {
    this.#registry ??= createSession(this.source, this.#access);
    return this.#registry;
  }

  /**
   * Resolves the reference by `read`, after the signature policy has accepted the image.
   * @throws PullError as `checkAccess` and `read`; the reason of a stop
   */
  async resolve<T>(read: (registry: MirroredSession) => Promise<T>): Promise<T> {
    this.progress.emit({ event: 'resolving', image: this.source.image });
    await this.stop.guard(checkAccess(this.source, this.#access));
    return this.request(() => read(this.registry));
  }

  /** What workers need for requests of their own. @throws PullError as `MirroredSession.access` */
  async network(): Promise<NetworkSetup> {
    const { connections, connectTimeoutMs, idleTimeoutMs, answerTimeoutMs } = this.settings;
    const { tlsVerify, allowHttpStorage, debug } = this.settings;
    const { registry } = this;
    const { value, expiresAtMs } = await this.request(() => registry.access(0));
    return {
      channel: `zpull-${randomUUID()}`,
      connections,
      connectTimeoutMs,
      idleTimeoutMs,
      answerTimeoutMs,
      endpoints: registry.endpoints,
      foreignTransport: { tlsVerify, environment: networkEnvironment(process.env), allowHttpStorage },
      endpointState: this.#endpointState,
      // New for each set of threads: earlier ones may have ended with requests in flight.
      limits: createLimits(registry.endpoints.length, connections),
      waits: this.#waits,
      userAgent: USER_AGENT,
      ...(isLocal(this.source) && { isLocal: true as const }),
      debug,
      ...(value === undefined ? {} : { authorization: { value, expiresAtMs } }),
    };
  }

  /** Runs a request of the main thread, during which karma fades. @throws the reason of a stop */
  async request<T>(send: () => Promise<T>): Promise<T> {
    this.retries.countRequests(1);
    try {
      return await this.stop.guard(send());
    } finally {
      this.retries.countRequests(-1);
    }
  }

  /** Emits the last events. @throws the reason of a stop, which can be an error of the callback */
  end(): void {
    this.progress.close();
    if (this.stop.reason !== undefined) throw this.stop.reason;
  }

  /** Sends and emits nothing more. */
  close(): void {
    this.#unfollow();
    this.progress.close();
    this.#registry?.close();
    clearInterval(this.#draining);
  }
}
