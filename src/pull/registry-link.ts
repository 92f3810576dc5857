import { randomUUID } from 'node:crypto';
import type { Reference } from '../format/reference.js';
import type { NetworkSetup, WorkerSetup } from '../pool/messages.js';
import { createRateLimit } from '../pool/rate-limit.js';
import { Concurrency, createLimits, type Limits, sharedClockMs } from '../registry/concurrency.js';
import { createCredentials } from '../registry/credentials.js';
import { createLacking } from '../registry/endpoint-choice.js';
import { endpointsOf } from '../registry/endpoints.js';
import { createMirroredSession, type MirroredSession } from '../registry/mirrored-session.js';
import type { Registries } from '../registry/registries-conf.js';
import { createWaitBudget } from '../registry/retry-after.js';
import { networkEnvironment } from '../registry/transport.js';
import type { PullEvent } from './events.js';
import { Patience } from './patience.js';
import type { Settings } from './settings.js';
import type { Stop } from './stop.js';

const USER_AGENT = 'zpull';

/** How often karma hears of bytes, which fade from then on: a twentieth of the default time constant. */
const DRAIN_MS = 50;

/** How one pull or copy talks to its registry, on the main thread and in its workers: all under one give-up rule. */
export class RegistryLink {
  readonly patience: Patience;
  readonly concurrency: Concurrency;
  /** What all threads keep to together. */
  readonly setup: Pick<WorkerSetup, 'rateLimit'>;
  readonly #settings: Settings;
  readonly #reference: Reference;
  readonly #stop: Stop;
  readonly #emit: (event: PullEvent) => void;
  readonly #draining: NodeJS.Timeout;
  readonly #registries: Registries | undefined;
  readonly #lacking = createLacking();
  readonly #waits = createWaitBudget();
  #limits: Limits | undefined;
  #session: MirroredSession | undefined;

  constructor(options: {
    settings: Settings;
    reference: Reference;
    registries: Registries | undefined;
    counters: Uint32Array;
    stop: Stop;
    emit: (event: PullEvent) => void;
  }) {
    this.#settings = options.settings;
    this.#reference = options.reference;
    this.#registries = options.registries;
    const { limitRate } = this.#settings;
    this.setup = limitRate === undefined ? {} : { rateLimit: createRateLimit(limitRate) };
    this.#stop = options.stop;
    this.#emit = options.emit;
    this.concurrency = new Concurrency(createLimits(1, this.#settings.connections));
    this.patience = new Patience({
      tauMs: this.#settings.patienceMs,
      counters: options.counters,
      stop: this.#stop,
      now: () => performance.now(),
      onWait: (wait) => {
        if (this.concurrency.throttled(wait.waitMs, sharedClockMs()))
          this.#emit({ event: 'waiting', ...wait });
      },
    });
    this.#draining = setInterval(() => this.patience.drain(), DRAIN_MS).unref();
  }

  /** Opened when first asked for. */
  get session(): MirroredSession {
    const { plainHttp, tlsVerify, certDir, connectTimeoutMs, idleTimeoutMs, debug } = this.#settings;
    const { credentials: given, authfile } = this.#settings;
    this.#session ??= createMirroredSession({
      endpoints: endpointsOf(this.#reference, this.#registries),
      credentialsFor: ({ host, repository }, isOwn) =>
        createCredentials({ host, repository, given: isOwn ? given : undefined, authfile, env: process.env }),
      ...(certDir === undefined ? {} : { certDir }),
      environment: networkEnvironment(process.env),
      plainHttp,
      tlsVerify,
      connectTimeoutMs,
      idleTimeoutMs,
      patience: this.patience,
      waits: this.#waits,
      userAgent: USER_AGENT,
      ...(debug && { debug: (line: string) => this.#emit({ event: 'debug', line }) }),
    });
    return this.#session;
  }

  /** What `ask` resolves to; karma's clock runs while the main thread itself asks. @throws the reason of a stop */
  async asking<T>(ask: () => Promise<T>): Promise<T> {
    this.patience.asking(1);
    try {
      return await this.#stop.guard(ask());
    } finally {
      this.patience.asking(-1);
    }
  }

  /** What workers need to know to ask by themselves. @throws PullError as `MirroredSession.access` */
  async network(): Promise<NetworkSetup> {
    const { connections, connectTimeoutMs, idleTimeoutMs, tlsVerify, debug } = this.#settings;
    const { session } = this;
    const { value, expiresAtMs } = await this.asking(() => session.access(0));
    this.#limits ??= createLimits(session.endpoints.length, connections);
    return {
      channel: `zpull-${randomUUID()}`,
      connections,
      connectTimeoutMs,
      idleTimeoutMs,
      endpoints: session.endpoints,
      elsewhere: { tlsVerify, environment: networkEnvironment(process.env) },
      lacking: this.#lacking,
      limits: this.#limits,
      waits: this.#waits,
      userAgent: USER_AGENT,
      debug,
      ...(value === undefined ? {} : { authorization: { value, expiresAtMs } }),
    };
  }

  close(): void {
    this.#session?.close();
    clearInterval(this.#draining);
  }
}
