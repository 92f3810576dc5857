import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { ofImage, PullError } from '../format/error.js';
import {
  formatLocalImage,
  formatReference,
  type LocalImage,
  parseLocalImage,
  parseReference,
  type Reference,
} from '../format/reference.js';
import type { NetworkSetup, WorkerSetup } from '../pool/messages.js';
import { createCounters } from '../pool/shared-memory.js';
import { StageRecorder } from '../pool/stages.js';
import {
  Concurrency,
  createLimits,
  createWaitBudget,
  sharedClockMs,
  type Wait,
} from '../registry/backoff.js';
import { checkAuthFile, createCredentials } from '../registry/credentials.js';
import { createEndpointState } from '../registry/endpoint-state.js';
import { createMirroredSession, type MirroredSession } from '../registry/mirrored-session.js';
import {
  endpointsOf,
  expandShortName,
  type Registries,
  readRegistries,
} from '../registry/registries-conf.js';
import { checkPolicy } from '../registry/signature-policy.js';
import { networkEnvironment } from '../registry/transport.js';
import { createLocalSession } from './oci-layout.js';
import { Stop } from './pull-context.js';
import { Progress, type PullEvent, type Silence } from './pull-events.js';
import { type RunOptions, resolveOptions, type Settings } from './pull-options.js';
import { KarmaRetryPolicy } from './retry-policy.js';
import { Shared, type TurnKind } from './shared.js';

const USER_AGENT = 'zpull';

/** An image in a registry, or in an OCI layout on this machine. */
export interface ImageSource {
  /** The full reference. */
  readonly image: string;
  /** The tag or digest to request; empty for the only image of a layout. */
  readonly name: string;
  readonly location: Reference | LocalImage;
  readonly registries: Registries | undefined;
}

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
  readonly stages: StageRecorder;
  /** Shared by all threads. */
  readonly setup: Pick<WorkerSetup, 'counters' | 'rateLimit'>;
  readonly #options: RunOptions;
  readonly #shared: Shared;
  readonly #turns: (() => void)[] = [];
  readonly #draining: NodeJS.Timeout;
  readonly #unfollow: () => void;
  readonly #endpointState = createEndpointState();
  readonly #waits = createWaitBudget();
  #lastReason: string | undefined;
  #registry: MirroredSession | undefined;

  /**
   * Opens a session; sends nothing yet. `interrupted` is the message when the options' signal
   * aborts.
   * @throws PullError as `resolveOptions`, `parseSource` and `readRegistries`
   */
  static async open(reference: string, options: RunOptions, interrupted: string): Promise<PullSession> {
    try {
      const registries = await readRegistries(process.env);
      const settings = resolveOptions(options);
      return new PullSession(parseSource(reference, registries), settings, options, interrupted);
    } catch (error) {
      throw ofImage(error, reference);
    }
  }

  private constructor(source: ImageSource, settings: Settings, options: RunOptions, interrupted: string) {
    this.source = source;
    this.#options = options;
    this.#shared = options.shared ?? new Shared(settings.limitRate);
    this.stages = options.stages ?? new StageRecorder();
    this.stages.set(settings);
    // Looking into a layout is cheap, and otherwise the store could fall behind the layout.
    const asksAlways = isLocal(source) && settings.policy === 'missing';
    this.settings = asksAlways ? { ...settings, policy: 'always' } : settings;
    const counters = createCounters();
    const { onEvent } = options;
    const listener =
      onEvent && ((event: PullEvent) => onEvent({ ...event, image: source.image, timeMs: Date.now() }));
    this.progress = new Progress(
      counters,
      listener,
      (error) => this.stop.now(error),
      () => this.#silence(),
    );
    const { connections, patienceMs } = settings;
    const { rateLimit } = this.#shared;
    this.setup = { counters, ...(rateLimit && { rateLimit }) };
    this.concurrency = new Concurrency(createLimits(1, connections));
    this.retries = new KarmaRetryPolicy({
      tauMs: patienceMs,
      counters,
      stop: this.stop,
      now: () => performance.now(),
      onWait: (wait) => this.#reportWait(wait),
      onMiss: (message) => this.progress.emit({ event: 'miss', message }),
    });
    this.#draining = setInterval(() => this.retries.drain(), DRAIN_MS).unref();
    this.#unfollow = this.stop.follow(options.signal, interrupted);
  }

  /**
   * Reports the server's own words once: the pull may wait for minutes before it fails with them.
   */
  #reportWait({ host, waitMs, reason }: Wait): void {
    if (reason !== undefined && reason !== this.#lastReason) {
      this.#lastReason = reason;
      this.progress.emit({ event: 'warning', message: `${host} asks to wait and says ${reason}` });
    }
    if (!this.concurrency.throttled(waitMs, sharedClockMs())) return;
    this.progress.emit({ event: 'waiting', host, waitMs, ...(reason !== undefined && { reason }) });
  }

  #silence(): Silence | undefined {
    const { connectTimeoutMs, answerTimeoutMs, idleTimeoutMs } = this.settings;
    const answerMs = connectTimeoutMs + answerTimeoutMs;
    const { awaited } = this.progress.layers;
    if (awaited === undefined) return undefined;
    return this.retries.silence(awaited === 'body' ? idleTimeoutMs : answerMs, answerMs);
  }

  /** The registry of the image and its mirrors, or the layout; created on first use. */
  get registry(): MirroredSession {
    const { location } = this.source;
    this.#registry ??=
      'transport' in location
        ? createLocalSession(location, this.#countResolved)
        : this.#createSession(location);
    return this.#registry;
  }

  #createSession(location: Reference): MirroredSession {
    const { source, settings } = this;
    const { connectTimeoutMs, idleTimeoutMs, answerTimeoutMs } = settings;
    const { plainHttp, tlsVerify, allowHttpStorage, certDir, credentials, authfile, debug } = settings;
    return createMirroredSession({
      endpoints: endpointsOf(location, source.registries),
      credentialsFor: ({ host, repository }, isOwn) =>
        createCredentials({
          host,
          repository,
          given: isOwn ? credentials : undefined,
          authfile,
          env: process.env,
          warn: (message) => this.progress.emit({ event: 'warning', message }),
          signal: this.#options.signal,
        }),
      ...(certDir === undefined ? {} : { certDir }),
      environment: networkEnvironment(process.env),
      plainHttp,
      tlsVerify,
      allowHttpStorage,
      connectTimeoutMs,
      idleTimeoutMs,
      answerTimeoutMs,
      retryPolicy: {
        received: (bytes) => {
          this.#countResolved(bytes);
          this.retries.received(bytes);
        },
        miss: (...failed) => this.retries.miss(...failed),
        pause: (wait) => this.retries.pause(wait),
      },
      waits: this.#waits,
      tokens: this.#shared.tokens,
      userAgent: USER_AGENT,
      ...(debug && { debug: (line: string) => this.progress.emit({ event: 'debug', line }) }),
    });
  }

  /**
   * Resolves the reference by `read`, after the signature policy has accepted the image.
   * @throws PullError as `checkPolicy`, `checkAuthFile` and `read`; the reason of a stop
   */
  async resolve<T>(read: (registry: MirroredSession) => Promise<T>): Promise<T> {
    this.progress.emit({ event: 'resolving', image: this.source.image });
    return this.stages.clock.within('resolve', async () => {
      this.#checkPolicy();
      return this.ask(read);
    });
  }

  /**
   * Asks the registry for something that is no image.
   * @throws PullError as `checkAuthFile` and `read`; the reason of a stop
   */
  async ask<T>(read: (registry: MirroredSession) => Promise<T>): Promise<T> {
    const { authfile } = this.settings;
    const { signal } = this.#options;
    if (!isLocal(this.source)) {
      await this.stop.guard(checkAuthFile({ authfile, env: process.env, signal }));
    }
    const endTurn = await this.#shared.turn('resolve', this.stop);
    try {
      return await this.request(() => read(this.registry));
    } finally {
      endTurn();
    }
  }

  readonly #countResolved = (bytes: number): void => this.stages.clock.addBytes('resolve', bytes);

  #checkPolicy(): void {
    const { insecurePolicy } = this.settings;
    for (const message of checkPolicy(this.source.location, { env: process.env, insecurePolicy })) {
      this.progress.emit({ event: 'warning', message });
    }
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

  /**
   * Waits until this pull may use threads; `endTurns` ends the turn. Closes idle connections
   * meanwhile.
   * @throws the reason of a stop
   */
  async takeTurn(kind: TurnKind): Promise<void> {
    if (this.#options.shared === undefined) return;
    this.#registry?.disconnect();
    this.#turns.push(await this.#shared.turn(kind, this.stop));
  }

  /** The threads of this pull have ended. */
  endTurns(): void {
    for (const end of this.#turns.splice(0)) end();
  }

  /** Sends and emits nothing more. */
  close(): void {
    this.#unfollow();
    this.progress.close();
    this.#registry?.close();
    clearInterval(this.#draining);
  }
}

/**
 * Parses a reference, with short names expanded as `registries` says.
 * @throws PullError `reference-malformed`
 */
function parseSource(reference: string, registries: Registries | undefined): ImageSource {
  if (typeof reference !== 'string') {
    throw new PullError('reference-malformed', `an image is named by a string, not by ${typeof reference}`);
  }
  const local = parseLocalImage(reference, (path) => resolve(path));
  if (local !== undefined) {
    const name = local.digest ?? local.tag ?? '';
    return { image: formatLocalImage(local), name, location: local, registries };
  }
  const remote = parseReference(reference, (name) => expandShortName(name, registries));
  const name = remote.digest ?? remote.tag ?? 'latest';
  return { image: formatReference(remote), name, location: remote, registries };
}

export function isLocal({ location }: ImageSource): boolean {
  return 'transport' in location;
}
