import { type ErrorCode, PullError, toFailure } from '../api/errors.js';
import { DOUBTFUL_FOREIGN_SHARE, percent } from './figures.js';
import type { Surroundings } from './machine.js';
import type { Measurement, MeasurementError, Report, Run, Statistics } from './report.js';
import { spreadOf, statisticsOf } from './statistics.js';

/** Runs further apart than this do not repeat well. */
const DOUBTFUL_SPREAD = 0.1;
/** The first run takes so many times as long as the slowest other: caches were cold. */
const DOUBTFUL_FIRST_RUN = 1.2;

/** What a measurement is about. */
export type Subject = Pick<Measurement, 'id' | 'stage' | 'name' | 'workers' | 'connections' | 'peer'>;

/** What one run found. */
export interface Finding extends Omit<Run, 'startedAtMs' | 'foreignShare'> {
  /** What made this run doubtful, such as a server that asked to wait. */
  readonly doubts?: readonly string[];
}

/** Adds runs to a report, and saves it after each. */
export class Recorder {
  readonly report: Report;
  readonly #save: (report: Report) => void;
  /** Why the work of other programs may be part of what is measured. */
  readonly #others: string;
  /** Doubts about single runs, by measurement. */
  readonly #seen = new Map<string, Set<string>>();

  constructor(report: Report, save: (report: Report) => void, hasLocalRegistry: boolean) {
    this.report = report;
    this.#save = save;
    this.#others = hasLocalRegistry ? ', the registry on this machine included' : '';
  }

  add(subject: Subject, { doubts = [], ...finding }: Finding, around: Surroundings): void {
    const { startedAtMs, foreignShare, clockJumped } = around;
    const run: Run = { startedAtMs, foreignShare, ...finding };
    let measurement = this.find(subject.id);
    if (measurement === undefined) {
      measurement = { ...subject, ...figuresOf([run]), runs: [run], doubts: [] };
      this.report.measurements.push(measurement);
    } else {
      measurement.runs.push(run);
      Object.assign(measurement, figuresOf(measurement.runs));
    }
    const seen = this.#seen.get(subject.id) ?? new Set();
    this.#seen.set(subject.id, seen);
    for (const doubt of doubts) seen.add(doubt);
    if (clockJumped)
      seen.add(`the clock was changed, or the machine slept, during run ${measurement.runs.length}`);
    measurement.doubts = [...seen, ...doubtsOf(measurement, this.#others)];
    this.save();
  }

  /** Notes why something could not be measured. */
  fail(measurement: string, error: unknown): void {
    this.report.errors.push({ measurement, ...failureOf(error) });
    this.save();
  }

  doubt(sentence: string): void {
    if (!this.report.doubts.includes(sentence)) this.report.doubts.push(sentence);
  }

  find(id: string): Measurement | undefined {
    return this.report.measurements.find((measurement) => measurement.id === id);
  }

  save(): void {
    this.#save(this.report);
  }
}

type Figures = Pick<
  Measurement,
  'bytes' | 'wallSeconds' | 'bytesPerSecond' | 'cpuSeconds' | 'peakMemoryBytes'
>;

function figuresOf(runs: readonly Run[]): Figures {
  const where = (figure: (run: Run) => number | null): Statistics | null => {
    const values = runs.map(figure).filter((value) => value !== null);
    return values.length === 0 ? null : statisticsOf(values);
  };
  return {
    bytes: statisticsOf(runs.map(({ bytes }) => bytes)).median,
    wallSeconds: statisticsOf(runs.map(({ wallSeconds }) => wallSeconds)),
    bytesPerSecond: statisticsOf(
      runs.map(({ bytes, wallSeconds }) => (wallSeconds > 0 ? bytes / wallSeconds : 0)),
    ),
    cpuSeconds: where(({ cpuSeconds }) => cpuSeconds),
    peakMemoryBytes: where(({ peakMemoryBytes }) => peakMemoryBytes),
  };
}

/** What makes the figures doubtful, a sentence each. */
function doubtsOf({ runs, wallSeconds }: Measurement, others: string): string[] {
  const doubts: string[] = [];
  const foreign = Math.max(...runs.map(({ foreignShare }) => foreignShare ?? 0));
  if (foreign > DOUBTFUL_FOREIGN_SHARE) {
    doubts.push(`up to ${percent(foreign)} of the processor's work was that of other programs${others}`);
  }
  const spread = spreadOf(wallSeconds);
  if (spread > DOUBTFUL_SPREAD) doubts.push(`the runs lie up to ${percent(spread)} of the median apart`);
  const [first, ...later] = runs.map((run) => run.wallSeconds);
  if (later.length > 1 && first! > Math.max(...later) * DOUBTFUL_FIRST_RUN) {
    doubts.push(
      'the first run was the slowest by far: it may have found caches cold that the others found warm',
    );
  }
  if (wallSeconds.outliers.length > 0) {
    const numbers = wallSeconds.outliers.map((index) => index + 1).join(', ');
    doubts.push(`outliers: run ${numbers}`);
  }
  return doubts;
}

/** A peer that failed. */
export class PeerFailure extends Error {}

function failureOf(error: unknown): Omit<MeasurementError, 'measurement'> {
  if (error instanceof PeerFailure) {
    return { code: 'peer-failed', message: error.message, hint: 'run its command by hand to see why' };
  }
  const { code: name = '', message: text } = error as NodeJS.ErrnoException;
  const known = STORAGE_CODES[name];
  const { code, message, hint } = toFailure(known === undefined ? error : new PullError(known, text));
  return { code, message, hint };
}

/** What the system's errors mean when stores are made and copied. */
const STORAGE_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'store-full',
  EDQUOT: 'store-full',
  EACCES: 'store-denied',
  EPERM: 'store-denied',
  EROFS: 'store-denied',
};
