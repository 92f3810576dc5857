import { type Measurement, REPORT_SCHEMA, type Report } from './report.js';
import { compareSamples, statisticsOf } from './statistics.js';

/** What one measurement takes in two reports. */
export interface Compared {
  readonly id: string;
  readonly name: string;
  /** Medians, in seconds; where the images differ in size, in seconds for a gigabyte. */
  readonly before: number;
  readonly now: number;
  /** Now over before: above 1 it got slower. */
  readonly ratio: number;
  readonly verdict: 'slower' | 'faster' | 'no difference' | 'too few runs';
}

export interface Comparison {
  readonly rows: readonly Compared[];
  /** Why the two reports may not be comparable. */
  readonly doubts: readonly string[];
}

const GIGABYTE = 1e9;
const SAME_SIZE_SHARE = 0.01;
/** Of texts of an earlier report; a digest has 71 characters. */
const MAX_SHOWN_LENGTH = 100;
/** As `--runs`; a comparison takes the square of their number. */
const MAX_RUNS = 1000;

/**
 * Compares what two reports have in common. A difference counts if a Mann-Whitney test over all
 * runs finds that chance makes it in less than one of 20 cases.
 */
export function compareReports(before: Report, now: Report): Comparison {
  const old = new Map(before.measurements.map((measurement) => [measurement.id, measurement]));
  const pairs = now.measurements.flatMap((measurement) => {
    const other = old.get(measurement.id);
    return other === undefined ? [] : [[other, measurement] as const];
  });
  const resized = pairs.filter(([was, is]) => !isSameSize(was, is)).map(([, { name }]) => name);
  return {
    rows: pairs.map(([was, is]) => compare(was, is)),
    doubts: [
      ...doubtsOf(before, now, pairs.length),
      ...(resized.length === 0
        ? []
        : [`sizes differ, so that seconds are those of a gigabyte: ${resized.join('; ')}`]),
    ],
  };
}

/** Whether times can be compared; retries fetch a little more. An image without bytes has no rates. */
function isSameSize(before: Measurement, now: Measurement): boolean {
  if ([before, now].some(({ runs }) => runs.some(({ bytes }) => bytes === 0))) return true;
  return Math.abs(before.bytes - now.bytes) <= now.bytes * SAME_SIZE_SHARE;
}

function compare(before: Measurement, now: Measurement): Compared {
  const isSame = isSameSize(before, now);
  const secondsOf = ({ runs }: Measurement) =>
    runs.map(({ wallSeconds, bytes }) => (isSame ? wallSeconds : (wallSeconds / bytes) * GIGABYTE));
  const [were, are] = [secondsOf(before), secondsOf(now)];
  const [was, is] = [statisticsOf(were).median, statisticsOf(are).median];
  const difference = compareSamples(were, are);
  const verdict = (
    { larger: 'slower', smaller: 'faster', same: 'no difference', 'too-few': 'too few runs' } as const
  )[difference];
  return { id: now.id, name: now.name, before: was, now: is, ratio: is === was ? 1 : is / was, verdict };
}

function doubtsOf(before: Report, now: Report, common: number): string[] {
  const differing = (what: string, was: unknown, is: unknown) =>
    was === is ? [] : [`${what} differs: ${String(was).slice(0, MAX_SHOWN_LENGTH)}, now ${String(is)}`];
  return [
    ...(common === 0 ? ['the two reports have no measurement in common'] : []),
    ...(before.complete ? [] : ['the earlier report is not complete']),
    ...differing('the image', before.image.digest, now.image.digest),
    ...differing('the processor', before.machine.cpuModel, now.machine.cpuModel),
    ...differing('the number of cores', before.machine.cores, now.machine.cores),
    ...differing('the file system', before.machine.fileSystem, now.machine.fileSystem),
    ...differing('--limit-rate', before.settings.limitRate, now.settings.limitRate),
  ];
}

/** The measurements that are slower beyond noise and by more than `percent`. */
export function slowerThan({ rows }: Comparison, percent: number): Compared[] {
  return rows.filter(({ verdict, ratio }) => verdict === 'slower' && (ratio - 1) * 100 > percent);
}

/**
 * Reads a report.
 * @throws Error that says what is wrong with the text
 */
export function parseReport(text: string): Report {
  let report: Partial<Report> | null;
  try {
    report = JSON.parse(text) as Partial<Report> | null;
  } catch {
    throw new Error('is no JSON');
  }
  if (typeof report !== 'object' || report === null || !Array.isArray(report.measurements)) {
    throw new Error('is no report of zpull bench');
  }
  if (report.schema !== REPORT_SCHEMA)
    throw new Error(`is a report of schema ${shown(report.schema)}, not ${REPORT_SCHEMA}`);
  const { image, machine, settings, measurements } = report;
  if (![image, machine, settings].every(isObject)) throw new Error('lacks image, machine or settings');
  const broken = measurements.findIndex((measurement) => !isMeasurement(measurement));
  if (broken >= 0) throw new Error(`has no figures in measurement ${broken + 1}`);
  return report as Report;
}

function shown(value: unknown): string {
  return String(JSON.stringify(value)).slice(0, MAX_SHOWN_LENGTH);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a comparison finds in it what it reads. */
function isMeasurement(value: unknown): boolean {
  if (!isObject(value) || typeof value['id'] !== 'string' || !isSize(value['bytes'])) return false;
  const { runs } = value;
  return (
    Array.isArray(runs) &&
    runs.length >= 1 &&
    runs.length <= MAX_RUNS &&
    runs.every((run) => isObject(run) && isSize(run['wallSeconds']) && isSize(run['bytes']))
  );
}

function isSize(value: unknown): boolean {
  return Number.isFinite(value) && (value as number) >= 0;
}
