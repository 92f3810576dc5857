import { randomUUID } from 'node:crypto';
import type { Reference } from '../format/reference.js';
import type { NetworkSetup } from '../pool/messages.js';
import { createCredentials } from '../registry/credentials.js';
import { createRegistrySession, type RegistrySession } from '../registry/session.js';
import { Concurrency } from './concurrency.js';
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
  readonly #settings: Settings;
  readonly #reference: Reference;
  readonly #stop: Stop;
  readonly #emit: (event: PullEvent) => void;
  readonly #draining: NodeJS.Timeout;
  #session: RegistrySession | undefined;

  constructor(options: {
    settings: Settings;
    reference: Reference;
    counters: Uint32Array;
    stop: Stop;
    emit: (event: PullEvent) => void;
  }) {
    this.#settings = options.settings;
    this.#reference = options.reference;
    this.#stop = options.stop;
    this.#emit = options.emit;
    this.concurrency = new Concurrency(this.#settings.connections, () => performance.now());
    this.patience = new Patience({
      tauMs: this.#settings.patienceMs,
      counters: options.counters,
      stop: this.#stop,
      now: () => performance.now(),
      onWait: (wait) => {
        if (this.concurrency.throttled(wait.waitMs)) this.#emit({ event: 'waiting', ...wait });
      },
    });
    this.#draining = setInterval(() => this.patience.drain(), DRAIN_MS).unref();
  }

  /** Opened when first asked for. */
  get session(): RegistrySession {
    const { plainHttp, tlsVerify, connectTimeoutMs, idleTimeoutMs, debug } = this.#settings;
    const { credentials: given, authfile } = this.#settings;
    const { host, repository } = this.#reference;
    this.#session ??= createRegistrySession({
      host,
      repository,
      credentials: createCredentials({ host, repository, given, authfile, env: process.env }),
      plainHttp,
      tlsVerify,
      connectTimeoutMs,
      idleTimeoutMs,
      patience: this.patience,
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

  /** What workers need to know to ask by themselves. @throws PullError as `RegistrySession.authorization` */
  async network(): Promise<NetworkSetup> {
    const { connections, connectTimeoutMs, idleTimeoutMs, tlsVerify, debug } = this.#settings;
    const { session } = this;
    const value = await this.asking(() => session.authorization());
    const expiresAtMs = session.authorizationExpiresAtMs;
    return {
      channel: `zpull-${randomUUID()}`,
      connections,
      connectTimeoutMs,
      idleTimeoutMs,
      tlsVerify,
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
