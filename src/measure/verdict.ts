import { DEFAULT_CONNECTIONS, defaultWorkersOf } from '../api/measure.js';
import { boundAdvice, connectionAdvice, reasonOf, shareAdvice, workerAdvice } from './advice.js';
import {
  type Bounds,
  busyShare,
  EQUAL_SHARE,
  fillsNetwork,
  find,
  largest,
  medianRun,
  NETWORK_SHARE,
  ofStage,
} from './figures.js';
import { type Measurement, type Report, SHARE_NAMES, type Shares, type Verdict } from './report.js';
import { isLocal } from './resolve.js';
import { compareSamples } from './statistics.js';

/** Runs of the same are this far apart at times, where they are too few for a test. */
const FEW_RUNS_SHARE = 0.25;
/** Of single runs nothing says how far they lie apart. */
const SINGLE_RUN_SHARE = 0.5;
/** A disk that alone takes this share of the pull without a network is what holds it up. */
const DISK_SHARE = 0.8;
/** Cores that are less busy than this are not what a pull waits for. */
const IDLE_SHARE = 0.6;
/**
 * Returns what limits the pull, which settings are best and what would be faster; null where the
 * network, the machine or the pull was not measured. Reads nothing but the report's figures.
 */
export function verdictOf(report: Report): Verdict | null {
  const pulls = report.measurements.filter(({ stage }) => stage === 'pull');
  const best = bestOf(pulls, report);
  if (best === undefined) return null;
  const usual = find(report, `pull/w${defaultWorkersOf(report.machine.cores)}/c${DEFAULT_CONNECTIONS}`);
  const pull = usual ?? best;
  const network = find(report, `network/c${pull.connections}`) ?? largest(ofStage(report, 'network'));
  const together = find(report, 'machine/together/all');
  if (together === undefined || (network === undefined && !isLocal(report.image.reference))) return null;
  const shares = sharesOf(pull);
  const bounds: Bounds = {
    network: network?.wallSeconds.median ?? 0,
    local: together.wallSeconds.median,
    disk: diskSeconds(report),
    fetching: fetchSeconds(pull),
    waiting: shares === null ? 0 : shares.resolve + shares.metadata + shares.fetchWait,
  };
  const seconds = pull.wallSeconds.median;
  const bound = boundOf(bounds, pull, report.machine.cores);
  const limiting = { network: bounds.network, processor: bounds.local, disk: bounds.disk ?? 0 }[bound];
  const floor = floorSeconds(report, bounds);
  return {
    bound,
    ratio: limiting / seconds,
    reason: reasonOf(bound, report, pull, bounds),
    floorRatio: floor === undefined ? null : seconds / floor,
    shares,
    best: settingOf(best),
    default: usual === undefined ? null : { ...settingOf(usual), lossPercent: lossPercent(usual, best) },
    advice: [
      ...connectionAdvice(report, best),
      ...workerAdvice(pulls, best, report),
      ...boundAdvice(bound, report, pull, bounds),
      ...(shares === null ? [] : shareAdvice(shares)),
    ],
  };
}

/**
 * The setting to recommend: of those as fast as the fastest, the default, or else the one with the
 * fewest connections and workers.
 */
function bestOf(pulls: readonly Measurement[], report: Report): Measurement | undefined {
  const [fastest] = [...pulls].sort((a, b) => a.wallSeconds.median - b.wallSeconds.median);
  const good = pulls.filter((pull) => isAsFast(pull, fastest!));
  const cost = ({ workers, connections }: Measurement) =>
    workers === defaultWorkersOf(report.machine.cores) && connections === DEFAULT_CONNECTIONS
      ? -1
      : (connections ?? 0) * 1000 + (workers ?? 0);
  return good.sort((a, b) => cost(a) - cost(b))[0];
}

/** Whether a setting takes as long as a faster one, as far as the runs can tell. */
function isAsFast(pull: Measurement, fastest: Measurement): boolean {
  if (pull.wallSeconds.median <= fastest.wallSeconds.median * (1 + EQUAL_SHARE)) return true;
  const difference = compareSamples(wallsOf(fastest), wallsOf(pull));
  if (difference !== 'too-few') return difference === 'same';
  const isSingle = pull.runs.length === 1 || fastest.runs.length === 1;
  return (
    pull.wallSeconds.min <= fastest.wallSeconds.max * (1 + (isSingle ? SINGLE_RUN_SHARE : FEW_RUNS_SHARE))
  );
}

function wallsOf({ runs }: Measurement): number[] {
  return runs.map(({ wallSeconds }) => wallSeconds);
}

function settingOf({ workers, connections, wallSeconds }: Measurement): Verdict['best'] {
  return { workers: workers ?? 0, connections: connections ?? 0, wallSeconds: wallSeconds.median };
}

function lossPercent(usual: Measurement, best: Measurement): number {
  if (isAsFast(usual, best)) return 0;
  return Math.max(0, (usual.wallSeconds.median / best.wallSeconds.median - 1) * 100);
}

/** Seconds that writing and syncing the tars takes on all threads. */
function diskSeconds(report: Report): number | undefined {
  return secondsAt(report, 'machine/write/all');
}

/** Seconds that one part of the work takes for all tars, on all cores. */
function secondsAt(report: Report, id: string): number | undefined {
  const rate = find(report, id)?.bytesPerSecond.median;
  return rate === undefined || rate <= 0 ? undefined : report.image.tarBytes / rate;
}

/** What takes longest alone: nothing that does the same work can be faster. */
function floorSeconds(report: Report, { network, disk }: Bounds): number | undefined {
  const parts = ['machine/decode/all', 'machine/hash/all'].map((id) => secondsAt(report, id));
  if (parts.some((seconds) => seconds === undefined)) return undefined;
  const processor = parts.reduce<number>((sum, seconds) => sum + (seconds ?? 0), 0);
  const floor = Math.max(network, processor, disk ?? 0);
  return floor > 0 ? floor : undefined;
}

function fetchSeconds(pull: Measurement): number | undefined {
  const wallMs = medianRun(pull).stages?.fetch.wallMs;
  return wallMs === undefined || wallMs === 0 ? undefined : wallMs / 1000;
}

/**
 * A network that takes longer than everything else is the limit, and so is one whose full rate the
 * pull reaches: on a busy machine, everything else takes longer than it has to. So is one whose
 * answers are far away, while the processor has little to do.
 */
function boundOf(bounds: Bounds, pull: Measurement, cores: number): Verdict['bound'] {
  const { network, local, disk, waiting } = bounds;
  if (network > local || fillsNetwork(bounds, pull)) return 'network';
  const busy = busyShare(pull, cores);
  if (network > 0 && waiting >= NETWORK_SHARE && busy !== undefined && busy < IDLE_SHARE) return 'network';
  return disk !== undefined && disk >= local * DISK_SHARE ? 'disk' : 'processor';
}

/**
 * The shares of the wall time of the median run. Resolving, reading metadata and proving are phases
 * of their own; the time of fetching is divided by what the threads did in it.
 */
function sharesOf(pull: Measurement): Shares | null {
  const { stages, wallSeconds } = medianRun(pull);
  if (stages === null) return null;
  const wallMs = wallSeconds * 1000;
  const { resolve, metadata, fetch, decode, hash, write, sync, prove } = stages;
  const threads = {
    fetchWait: fetch.waitMs,
    receive: fetch.workMs,
    decode: decode.workMs,
    hash: hash.workMs,
    write: write.workMs,
    sync: sync.workMs + sync.waitMs,
  };
  const threadMs = Object.values(threads).reduce((sum, ms) => sum + ms, 0);
  const phases = { resolve: resolve.wallMs, metadata: metadata.wallMs, prove: prove.wallMs };
  const divided = Object.entries(threads).map(([name, ms]) => [
    name,
    threadMs === 0 ? 0 : (fetch.wallMs * ms) / threadMs,
  ]);
  const parts: Record<string, number> = { ...phases, ...Object.fromEntries(divided) };
  const known = Object.values(parts).reduce((sum, ms) => sum + ms, 0);
  // Phases may overlap: then they are more than the pull.
  const total = Math.max(wallMs, known);
  parts['other'] = total - known;
  return Object.fromEntries(SHARE_NAMES.map((name) => [name, (parts[name] ?? 0) / total])) as Shares;
}
