import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { formatLocalImage, type LocalImage, parseLocalImage } from '../format/local-image.js';
import { formatReference, parseReference, type Reference } from '../format/reference.js';
import { createCounters } from '../pool/counters.js';
import type { NetworkSetup, WorkerSetup } from '../pool/messages.js';
import { createRateLimit } from '../pool/rate-limit.js';
import { Concurrency, createLimits, createWaitBudget, sharedClockMs } from '../registry/backoff.js';
import { checkAuthFile, createCredentials } from '../registry/credentials.js';
import { createEndpointState } from '../registry/endpoint-choice.js';
import { endpointsOf, expandShortName } from '../registry/endpoints.js';
import { createMirroredSession, type MirroredSession } from '../registry/mirrored-session.js';
import { type Registries, readRegistries } from '../registry/registries-conf.js';
import { checkPolicy } from '../registry/signature-policy.js';
import type { TokenCache } from '../registry/token.js';
import { networkEnvironment } from '../registry/transport.js';
import { createLocalSession } from './local-session.js';
import { Progress } from './pull-events.js';
import { type PullOptions, resolveOptions, type Settings } from './pull-options.js';
import { Patience } from './retry-policy.js';
import { Stop } from './stop.js';

const USER_AGENT = 'zpull';

/** How often karma hears of bytes, which fade from then on: a twentieth of the default time constant. */
const DRAIN_MS = 50;

/**
 * How one pull or copy talks to its registry, on the main thread and in its workers: as the options say, all under one
 * give-up rule, until it is stopped or closed.
 */
export class RegistryLink {
  readonly settings: Settings;
  /** The reference in full. */
  readonly image: string;
  /** What the session is asked for: a digest or a tag; empty for the only image of a layout. */
  readonly name: string;
  readonly stop = new Stop();
  readonly progress: Progress;
  readonly patience: Patience;
  readonly concurrency: Concurrency;
  /** What all threads keep to together. */
  readonly setup: Pick<WorkerSetup, 'counters' | 'rateLimit'>;
  readonly #named: Reference | LocalImage;
  readonly #registries: Registries | undefined;
  readonly #draining: NodeJS.Timeout;
  readonly #unfollow: () => void;
  readonly #endpointState = createEndpointState();
  readonly #waits = createWaitBudget();
  readonly #tokens: TokenCache;
  readonly #signal: AbortSignal | undefined;
  #toldWords: string | undefined;
  #session: MirroredSession | undefined;

  /**
   * Nothing is sent yet. `interrupted` is what is said when the options' signal is aborted.
   * @throws PullError as `resolveOptions`, `parseReference` and `readRegistries`
   */
  static async open(reference: string, options: PullOptions, interrupted: string): Promise<RegistryLink> {
    return new RegistryLink(reference, options, interrupted, await readRegistries(process.env));
  }

  private constructor(
    reference: string,
    options: PullOptions,
    interrupted: string,
    registries: Registries | undefined,
  ) {
    const local = parseLocalImage(reference, (path) => resolve(path));
    const settings = resolveOptions(options);
    if (local === undefined) {
      const named = parseReference(reference, (name) => expandShortName(name, registries));
      this.#named = named;
      this.settings = settings;
      this.image = formatReference(named);
      this.name = named.digest ?? named.tag ?? 'latest';
    } else {
      this.#named = local;
      // A look into a layout is cheap, and without it the store could stay behind the layout.
      this.settings = settings.policy === 'missing' ? { ...settings, policy: 'always' } : settings;
      this.image = formatLocalImage(local);
      this.name = local.digest ?? local.tag ?? '';
    }
    this.#registries = registries;
    this.#tokens = options.tokens ?? new Map();
    this.#signal = options.signal;
    const counters = createCounters();
    this.progress = new Progress(counters, options.onEvent, (error) => this.stop.now(error));
    const { limitRate, connections, patienceMs } = this.settings;
    this.setup = {
      counters,
      ...(limitRate === undefined ? {} : { rateLimit: createRateLimit(limitRate) }),
    };
    this.concurrency = new Concurrency(createLimits(1, connections));
    this.patience = new Patience({
      tauMs: patienceMs,
      counters,
      stop: this.stop,
      now: () => performance.now(),
      onWait: ({ host, waitMs, words }) => {
        this.#tellWords(host, words);
        if (!this.concurrency.throttled(waitMs, sharedClockMs())) return;
        this.progress.emit({ event: 'waiting', host, waitMs });
      },
      onMiss: (message) => this.progress.emit({ event: 'miss', message }),
    });
    this.#draining = setInterval(() => this.patience.drain(), DRAIN_MS).unref();
    this.#unfollow = this.stop.follow(options.signal, interrupted);
  }

  /** Warns of what a server says about a wait, once: the pull may go on for minutes before it ends with it. */
  #tellWords(host: string, words: string | undefined): void {
    if (words === undefined || words === this.#toldWords) return;
    this.#toldWords = words;
    this.progress.emit({ event: 'warning', message: `${host} asks to wait and says ${words}` });
  }

  /** Opened when first asked for. */
  get session(): MirroredSession {
    this.#session ??= 'transport' in this.#named ? createLocalSession(this.#named) : this.#ask(this.#named);
    return this.#session;
  }

  #ask(reference: Reference): MirroredSession {
    const { plainHttp, tlsVerify, certDir, connectTimeoutMs, debug } = this.settings;
    const { credentials: given, authfile, idleTimeoutMs, answerTimeoutMs, allowHttpStorage } = this.settings;
    return createMirroredSession({
      endpoints: endpointsOf(reference, this.#registries),
      credentialsFor: ({ host, repository }, isOwn) =>
        createCredentials({
          host,
          repository,
          given: isOwn ? given : undefined,
          authfile,
          env: process.env,
          warn: (message) => this.progress.emit({ event: 'warning', message }),
          signal: this.#signal,
        }),
      ...(certDir === undefined ? {} : { certDir }),
      environment: networkEnvironment(process.env),
      plainHttp,
      tlsVerify,
      allowHttpStorage,
      connectTimeoutMs,
      idleTimeoutMs,
      answerTimeoutMs,
      retryPolicy: this.patience,
      waits: this.#waits,
      tokens: this.#tokens,
      userAgent: USER_AGENT,
      ...(debug && { debug: (line: string) => this.progress.emit({ event: 'debug', line }) }),
    });
  }

  /**
   * What the reference names, which `ask` finds out. Nothing is asked before the policy has accepted the image; what the user should
   * know of it is told before.
   * @throws PullError as `checkPolicy`, `checkAuthFile` and `ask`; the reason of a stop
   */
  async resolve<T>(ask: (session: MirroredSession) => Promise<T>): Promise<T> {
    const { emit } = this.progress;
    const { insecurePolicy, authfile } = this.settings;
    emit({ event: 'resolving', image: this.image });
    for (const message of checkPolicy(this.#named, { env: process.env, insecurePolicy })) {
      emit({ event: 'warning', message });
    }
    if (!('transport' in this.#named)) {
      await this.stop.guard(checkAuthFile({ authfile, env: process.env, signal: this.#signal }));
    }
    return this.asking(() => ask(this.session));
  }

  /** What workers need to know to ask by themselves. @throws PullError as `MirroredSession.access` */
  async network(): Promise<NetworkSetup> {
    const { connections, connectTimeoutMs, idleTimeoutMs, answerTimeoutMs } = this.settings;
    const { tlsVerify, allowHttpStorage, debug } = this.settings;
    const { session } = this;
    const { value, expiresAtMs } = await this.asking(() => session.access(0));
    return {
      channel: `zpull-${randomUUID()}`,
      connections,
      connectTimeoutMs,
      idleTimeoutMs,
      answerTimeoutMs,
      endpoints: session.endpoints,
      foreignTransport: { tlsVerify, environment: networkEnvironment(process.env), allowHttpStorage },
      endpointState: this.#endpointState,
      // Anew for the threads of now: those before may have been ended with ranges in flight.
      limits: createLimits(session.endpoints.length, connections),
      waits: this.#waits,
      userAgent: USER_AGENT,
      ...('transport' in this.#named && { isLocal: true as const }),
      debug,
      ...(value === undefined ? {} : { authorization: { value, expiresAtMs } }),
    };
  }

  /** What `ask` resolves to; karma's clock runs while the main thread itself asks. @throws the reason of a stop */
  async asking<T>(ask: () => Promise<T>): Promise<T> {
    this.patience.asking(1);
    try {
      return await this.stop.guard(ask());
    } finally {
      this.patience.asking(-1);
    }
  }

  /** The last events are told. @throws the reason of a stop, which an error of the callback is too */
  end(): void {
    this.progress.close();
    if (this.stop.reason !== undefined) throw this.stop.reason;
  }

  /** Nothing is asked or told any more. */
  close(): void {
    this.#unfollow();
    this.progress.close();
    this.#session?.close();
    clearInterval(this.#draining);
  }
}
