import type { ErrorCode } from '../api/errors.js';
import type { Stages } from '../api/stages.js';

export type { Stages } from '../api/stages.js';

/**
 * The report of `zpull bench`, which `--json FILE` writes and `--html FILE` draws
 * (docs/measuring.md). Times are seconds unless a name says otherwise, sizes bytes, shares 0 to 1.
 */
export interface Report {
  readonly schema: typeof REPORT_SCHEMA;
  /** The version that measured. */
  readonly zpull: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** False until everything has been measured: after Ctrl-C it stays false. */
  complete: boolean;
  /** The command line that repeats the measurement, without secrets. */
  readonly command: readonly string[];
  readonly image: MeasuredImage;
  readonly machine: Machine;
  readonly settings: Settings;
  readonly measurements: Measurement[];
  readonly peers: PeerDescription[];
  verdict: Verdict | null;
  /** Doubts that concern more than one measurement. */
  readonly doubts: string[];
  readonly errors: MeasurementError[];
}

/** Raised when a field changes its meaning or goes. */
export const REPORT_SCHEMA = 1;

interface MeasuredImage {
  readonly reference: string;
  readonly digest: string;
  readonly platform: string;
  /** Bytes of all layers as the registry has them. */
  readonly blobBytes: number;
  /** Bytes of all tars. */
  tarBytes: number;
  readonly layers: readonly {
    readonly digest: string;
    readonly format: string;
    readonly sizeBytes: number;
    /** Null until the layer was decoded, where its metadata does not say. */
    tarBytes: number | null;
  }[];
}

export interface Machine {
  /** Cores that this process may use. */
  readonly cores: number;
  readonly cpuModel: string;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  /** Version of the libzstd that decodes. */
  readonly zstd: string;
  /** Type of the file system that the stores lie on. */
  readonly fileSystem: string;
}

interface Settings {
  readonly runs: number;
  readonly workers: readonly number[];
  readonly connections: readonly number[];
  readonly stage: Stage;
  /** Bytes a second. */
  readonly limitRate: number | null;
  /** The image that the update starts from. */
  readonly from: string | null;
  readonly against: readonly string[];
}

export const STAGES = ['all', 'network', 'pull', 'export', 'update'] as const;
/** What `--stage` may be. */
export type Stage = (typeof STAGES)[number];

type MeasurementStage = 'network' | 'machine' | 'pull' | 'unchanged' | 'update' | 'export' | 'peer';

/** One thing that was measured, some runs of it. */
export interface Measurement {
  /** Stable: `network/c16`, `machine/decode/one`, `pull/w2/c16`, `peer/skopeo`. */
  readonly id: string;
  readonly stage: MeasurementStage;
  /** For people. */
  readonly name: string;
  readonly workers: number | null;
  readonly connections: number | null;
  readonly peer: string | null;
  /**
   * Bytes of one run, the median: received ones; of `machine/decode` and `machine/hash` those of
   * the tars; of `machine/write` and `export` those written.
   */
  bytes: number;
  wallSeconds: Statistics;
  bytesPerSecond: Statistics;
  cpuSeconds: Statistics | null;
  peakMemoryBytes: Statistics | null;
  readonly runs: Run[];
  doubts: string[];
}

/** One run. */
export interface Run {
  /** Since `startedAt`, in milliseconds. */
  readonly startedAtMs: number;
  readonly wallSeconds: number;
  readonly bytes: number;
  readonly cpuSeconds: number | null;
  readonly peakMemoryBytes: number | null;
  /** Share of what the processor did meanwhile that was the work of other programs. */
  readonly foreignShare: number | null;
  readonly stages: Stages | null;
  /** Milliseconds since the run began, and the bytes received until then. */
  readonly timeline: ReadonlyArray<readonly [ms: number, bytes: number]> | null;
}

/** Figures of repeated runs. */
export interface Statistics {
  readonly median: number;
  readonly mean: number;
  /** The sample standard deviation; 0 for a single run. */
  readonly standardDeviation: number;
  readonly min: number;
  readonly max: number;
  /** Indices of runs whose modified z-score is above 3.5. */
  readonly outliers: readonly number[];
}

/** Another program that does what a pull does. */
export interface PeerDescription {
  readonly name: string;
  readonly version: string | null;
  /** Why it was not measured; null if it was. */
  readonly missing: string | null;
  /** The command line, with placeholders for directories. */
  readonly command: string;
  /** What it leaves on disk: blobs, unpacked files … */
  readonly leaves: string;
  /** Which digests it checks. */
  readonly proves: string;
}

export interface Verdict {
  readonly bound: 'network' | 'processor' | 'disk';
  /** How long the limiting resource alone takes, as a share of the pull: 0.97 leaves 3 % to gain. */
  readonly ratio: number;
  readonly reason: string;
  /** Pull over the floor: the longest of what network, processor and disk take alone. */
  readonly floorRatio: number | null;
  /** Shares of the wall time of the median pull with default settings. */
  readonly shares: Shares | null;
  readonly best: SettingFigures;
  /** Null if the settings that a pull has without options were not measured. */
  readonly default:
    | (SettingFigures & {
        /** How much longer it takes than the best setting, in percent; 0 within noise. */
        readonly lossPercent: number;
      })
    | null;
  /** What would change the result, a sentence each. */
  readonly advice: readonly string[];
}

interface SettingFigures {
  readonly workers: number;
  readonly connections: number;
  readonly wallSeconds: number;
}

export const SHARE_NAMES = [
  'resolve',
  'metadata',
  'fetchWait',
  'receive',
  'decode',
  'hash',
  'write',
  'sync',
  'prove',
  'other',
] as const;

/** Sums to 1. `fetchWait`: waiting for the network; `receive`: reading from sockets; `other`: start-up, planning, publishing. */
export type Shares = Readonly<Record<(typeof SHARE_NAMES)[number], number>>;

/** Why something could not be measured. */
export interface MeasurementError {
  /** Its id. */
  readonly measurement: string;
  readonly code: ErrorCode | 'peer-failed';
  readonly message: string;
  readonly hint: string;
}
