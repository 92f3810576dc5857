import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PullError, toFailure } from '../api/errors.js';
import type { ImageInspection, PullOptions } from '../api/pull.js';
import { removeTree } from '../files/remove-tree.js';
import { watchMachine } from './machine.js';
import type { Finding, Recorder, Subject } from './recorder.js';
import type { Stage } from './report.js';

/** What to measure, and how to reach it. */
export interface MeasureOptions {
  readonly image: string;
  /** For requests of this process. */
  readonly pull: Omit<PullOptions, 'store' | 'signal' | 'onEvent' | 'workers' | 'connections' | 'policy'>;
  /** The same for the command; without a password, which is in `input`. */
  readonly arguments: readonly string[];
  /** The standard input of each command. */
  readonly input?: string;
  /** The path of the command. */
  readonly command: string;
  /** The command line that repeats the measurement. */
  readonly commandLine: readonly string[];
  readonly runs: number;
  readonly stage: Stage;
  /** Left out: what the measurements themselves suggest. */
  readonly workers?: readonly number[];
  readonly connections?: readonly number[];
  /** The image that an update starts from. */
  readonly from?: string;
  /** Names of `PEER_NAMES`. */
  readonly against: readonly string[];
  /** An empty directory for everything that is written. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

/** Which run of how many begins. */
export interface Step {
  readonly measurement: string;
  readonly name: string;
  readonly run: number;
  readonly runs: number;
  /** Runs of all measurements that are done, and those there will be as far as is known. */
  readonly done: number;
  readonly total: number;
  /** Undefined until something was measured. */
  readonly etaSeconds: number | undefined;
}

/** An image as it was resolved. */
export interface ResolvedImage {
  /** Its name with the digest; what it says is in `seed`. */
  readonly pinned: string;
  readonly digest: string;
  readonly platform: string;
  readonly blobBytes: number;
  /** A store that has its manifest and config, and nothing else. */
  readonly seed: string;
  /** It is in a layout or an archive. */
  readonly isLocal: boolean;
  /** Its registry is on this machine. */
  readonly isLoopback: boolean;
}

/** A registry that failed so often in a row is not asked again: each failure can take ten minutes. */
const MAX_FAILURES_IN_A_ROW = 3;
/** Not authorised, and no network. */
const NETWORK_EXIT_CODES = [4, 5];

/** What all parts of a measurement share. */
export class Context {
  readonly options: MeasureOptions;
  readonly image: ResolvedImage;
  readonly layers: ImageInspection['layers'];
  readonly recorder: Recorder;
  /** The report's `startedAt` by `performance.now()`. */
  readonly startedMs: number;
  readonly #onStep: (step: Step) => void;
  /** Runs that are expected, by measurement. */
  readonly #expected = new Map<string, number>();
  #directories = 0;
  /** Failures of the network since something was received. */
  #failures = 0;
  #lastFailure: unknown;

  constructor(
    options: MeasureOptions,
    { image, layers, startedMs }: Pick<Context, 'image' | 'layers' | 'startedMs'>,
    recorder: Recorder,
    onStep: (step: Step) => void,
  ) {
    this.options = options;
    this.image = image;
    this.layers = layers;
    this.recorder = recorder;
    this.#onStep = onStep;
    this.startedMs = startedMs;
  }

  /** A path below the scratch directory that nobody has used. */
  newPath(): string {
    this.#directories += 1;
    return join(this.options.directory, String(this.#directories));
  }

  /** A store that has the manifests and configs of these images and nothing else. */
  freshStore(...images: readonly ResolvedImage[]): string {
    const store = this.newPath();
    for (const { seed } of images) cpSync(seed, store, { recursive: true });
    return store;
  }

  /** Starts to watch what else happens on the machine. */
  watch(): ReturnType<typeof watchMachine> {
    return watchMachine(this.startedMs);
  }

  /** Runs `action` with a path, which is removed afterwards. */
  async withPath<T>(path: string, action: (path: string) => Promise<T>): Promise<T> {
    try {
      return await action(path);
    } finally {
      removeTree(path);
    }
  }

  makeDirectory(): string {
    const path = this.newPath();
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  /** Announces measurements, for the estimate of the time left. */
  expect(ids: readonly string[], runs = this.options.runs): void {
    for (const id of ids) this.#expected.set(id, runs);
  }

  /**
   * Measures one run.
   * @returns false when it failed, which the report then says
   * @throws the reason of an abort
   */
  async measure(subject: Subject, run: () => Promise<Finding>): Promise<boolean> {
    const isRemote = subject.stage !== 'machine' && !this.image.isLocal;
    if (isRemote && this.#failures >= MAX_FAILURES_IN_A_ROW) {
      const { code, message, hint } = toFailure(this.#lastFailure);
      this.fail(
        subject.id,
        new PullError(code, `not tried, as others before it failed: ${message}`, { hint }),
      );
      return false;
    }
    this.announce(subject);
    const watch = this.watch();
    try {
      const finding = await run();
      this.recorder.add(subject, finding, watch(finding.cpuSeconds));
      if (isRemote) this.#failures = 0;
      return true;
    } catch (error) {
      this.options.signal.throwIfAborted();
      if (isRemote && isOfNetwork(error)) {
        this.#failures += 1;
        this.#lastFailure = error;
      }
      this.fail(subject.id, error);
      return false;
    }
  }

  /** Measures each of these as often as was asked for, in turns: what changes meanwhile touches all alike. */
  async inTurns(
    all: ReadonlyArray<{ readonly subject: Subject; readonly run: () => Promise<Finding> }>,
    runs = this.options.runs,
  ): Promise<void> {
    this.expect(all.map(({ subject }) => subject.id));
    const failed = new Set<string>();
    for (let turn = 0; turn < runs; turn++) {
      for (const { subject, run } of all) {
        if (failed.has(subject.id)) continue;
        if (!(await this.measure(subject, run))) failed.add(subject.id);
      }
    }
  }

  /** Notes a failure; nothing more is expected of this measurement. */
  fail(id: string, error: unknown): void {
    this.#expected.set(id, this.#runsOf(id).length);
    this.recorder.fail(id, error);
  }

  /** Shows which run begins. */
  announce({ id, name }: Pick<Subject, 'id' | 'name'>): void {
    const done = this.recorder.report.measurements.reduce((sum, { runs }) => sum + runs.length, 0);
    const left = [...this.#expected].reduce(
      (sum, [each, runs]) => sum + Math.max(0, runs - this.#runsOf(each).length),
      0,
    );
    const run = this.#runsOf(id).length + 1;
    const runs = Math.max(run, this.#expected.get(id) ?? 1);
    const etaSeconds = done === 0 ? undefined : this.#secondsLeft();
    this.#onStep({ measurement: id, name, run, runs, done, total: done + Math.max(1, left), etaSeconds });
  }

  /** Runs to come take as long as those of the same measurement, or of all, did. */
  #secondsLeft(): number {
    const { measurements } = this.recorder.report;
    const all = measurements.flatMap(({ runs }) => runs.map(({ wallSeconds }) => wallSeconds));
    const mean = all.reduce((sum, seconds) => sum + seconds, 0) / all.length;
    return [...this.#expected].reduce((sum, [id, runs]) => {
      const left = Math.max(0, runs - this.#runsOf(id).length);
      return sum + left * (this.recorder.find(id)?.wallSeconds.mean ?? mean);
    }, 0);
  }

  #runsOf(id: string): readonly unknown[] {
    return this.recorder.find(id)?.runs ?? [];
  }
}

function isOfNetwork(error: unknown): boolean {
  return error instanceof PullError && NETWORK_EXIT_CODES.includes(error.exitCode);
}

/** What the subject of a measurement has where nothing else is said. */
export const NO_SETTING = { workers: null, connections: null, peer: null } as const;
