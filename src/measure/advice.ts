import { formatCount, formatRate } from '../format/figures.js';
import {
  type Bounds,
  busyShare,
  DOUBTFUL_FOREIGN_SHARE,
  EQUAL_SHARE,
  fillsNetwork,
  formatSecondsOf,
  largest,
  medianRun,
  ofStage,
  percent,
  reachesFullRate,
} from './figures.js';
import type { Measurement, Report, Shares, Verdict } from './report.js';

/** A part of a pull that is worth a sentence. */
const NOTABLE_SHARE = 0.3;
const MOST = 0.5;

/** What limits a pull, in words and figures. */
export function reasonOf(
  bound: Verdict['bound'],
  { settings, machine }: Report,
  pull: Measurement,
  bounds: Bounds,
): string {
  const { network, local, disk, fetching } = bounds;
  const all = formatSecondsOf(pull.wallSeconds.median);
  const share = (seconds: number) =>
    `${formatSecondsOf(seconds)} (${percent(seconds / pull.wallSeconds.median)})`;
  if (bound === 'network') {
    const limit =
      settings.limitRate === null ? '' : `, as --limit-rate allows ${formatRate(settings.limitRate)}`;
    const meanwhile =
      fetching === undefined || fetching <= network
        ? 'the pull decodes and writes meanwhile, and receives as fast'
        : `the pull, which decodes and writes meanwhile, received them in ${formatSecondsOf(fetching)}`;
    if (network <= local && !fillsNetwork(bounds, pull)) {
      return `The network is the limit, by its delay: for ${percent(bounds.waiting)} of the ${all} of a pull, it waits for answers of the registry; receiving the bytes alone takes ${share(network)}${limit}, everything else without a network ${share(local)}.`;
    }
    const rest = reachesFullRate(bounds)
      ? meanwhile
      : `everything else without a network takes ${share(local)}`;
    return `The network is the limit: of the ${all} of a pull, receiving the bytes alone takes ${share(network)}${limit}; ${rest}.`;
  }
  const busy = busyText(pull, machine.cores);
  const whose = machine.cores === 1 ? 'the core is' : `the ${machine.cores} cores are`;
  const cores = busy === undefined ? '' : `, and ${whose} ${busy}`;
  const net = network > 0 ? `; receiving the bytes alone takes ${share(network)}` : '';
  if (bound === 'disk') {
    return `The disk is the limit: of the ${all} of a pull, writing and syncing alone takes ${share(disk ?? 0)}${net}.`;
  }
  return `The processor is the limit: of the ${all} of a pull, the same work without a network takes ${share(local)}${cores}${net}.`;
}

/** How busy the cores were during the median run, and how much of that was not the pull, where it is much. */
function busyText(pull: Measurement, cores: number): string | undefined {
  const share = busyShare(pull, cores);
  if (share === undefined) return undefined;
  const foreign = medianRun(pull).foreignShare ?? 0;
  const busy = `busy ${percent(share)} of the pull`;
  if (foreign <= DOUBTFUL_FOREIGN_SHARE) return busy;
  return `${busy}, of which ${percent(foreign)} for other programs`;
}

/** How the network grows with connections, and why so many are right. */
export function connectionAdvice(report: Report, best: Measurement): string[] {
  const grid = ofStage(report, 'network')
    .filter(({ connections }) => connections !== null)
    .sort((a, b) => a.connections! - b.connections!);
  const [one] = grid;
  const most = largest(grid);
  const chosen = best.connections ?? 0;
  if (one === undefined || most === undefined || grid.length < 2) return [];
  if (most.bytesPerSecond.median === 0) return []; // An image without layers.
  const rate = ({ bytesPerSecond }: Measurement) => formatRate(bytesPerSecond.median);
  const rates = grid.map((each, i) =>
    i === 0
      ? `${rate(each)} to ${formatCount(each.connections!, 'connection')}`
      : `${rate(each)} to ${each.connections}`,
  );
  const gives = `the network gives ${rates.join(', ')}`;
  const enough = grid.find(
    ({ bytesPerSecond }) => bytesPerSecond.median * (1 + EQUAL_SHARE) >= most.bytesPerSecond.median,
  )!.connections!;
  if (enough === one.connections) {
    const others = chosen > enough ? ` ${enough} would do, and the pull is as fast with ${chosen}.` : '';
    return [`More than ${formatCount(enough, 'connection')} ${bring(enough)} nothing: ${gives}.${others}`];
  }
  const right = `${formatCount(chosen, 'connection')} ${chosen === 1 ? 'is' : 'are'} right`;
  const why = one.connections === 1 ? ', as each connection has a limit of its own or waits for answers' : '';
  return [`${right}: ${gives}${why}. ${enoughText(grid, enough, chosen)}`];
}

/** What the number of connections that the network needs means for the one that was chosen. */
function enoughText(grid: readonly Measurement[], enough: number, chosen: number): string {
  if (chosen < enough)
    return `With ${chosen} the rest of the pull takes longer than the network: more do not make it faster.`;
  if (chosen > enough) return `${enough} would do for the network, and the pull is as fast with ${chosen}.`;
  return grid.at(-1)!.connections === enough
    ? `More than ${enough} were not tried.`
    : `More than ${enough} bring nothing.`;
}

function bring(count: number): string {
  return count === 1 ? 'brings' : 'bring';
}

/** What more workers bring. */
export function workerAdvice(
  pulls: readonly Measurement[],
  best: Measurement,
  { machine }: Report,
): string[] {
  const alike = pulls
    .filter(({ connections }) => connections === best.connections)
    .sort((a, b) => a.workers! - b.workers!);
  const one = alike[0];
  if (alike.length < 2 || one === undefined || one === best) return [];
  const gain = one.wallSeconds.median / best.wallSeconds.median;
  if (gain < 1 + EQUAL_SHARE) {
    return [
      `More than ${formatCount(one.workers!, 'worker')} ${bring(one.workers!)} nothing on ${formatCount(machine.cores, 'core')}.`,
    ];
  }
  return [
    `${formatCount(best.workers!, 'worker')} are ${gain.toFixed(1)} times as fast as ${formatCount(one.workers!, 'worker')}.`,
  ];
}

/** What would move the limit, and what would not. */
export function boundAdvice(
  bound: Verdict['bound'],
  report: Report,
  pull: Measurement,
  { network, local }: Bounds,
): string[] {
  const { settings, image, machine } = report;
  if (bound === 'network') {
    if (settings.limitRate !== null) {
      return ['A higher --limit-rate would make the pull faster; more cores or a faster disk would not.'];
    }
    return [
      `A nearer mirror or a faster link would make the pull faster${network > local ? `, up to ${(network / local).toFixed(1)} times` : ''}; more cores or a faster disk would not.`,
    ];
  }
  const more =
    network > 0 ? 'A faster network or a second mirror would not help' : 'Nothing but the machine counts';
  if (bound === 'disk') return [`${more}: the disk writes and syncs all the time. A faster disk would.`];
  const busy = busyText(pull, machine.cores);
  const because = busy === undefined ? 'the processor is the limit' : `the processor is ${busy}`;
  const slow = image.layers.filter(({ format }) => format === 'gzip').length;
  return [
    `${more}: ${because}.`,
    ...((medianRun(pull).foreignShare ?? 0) > MOST
      ? [
          'Other programs, such as a registry on this machine, do most of its work: without them the pull would be faster.',
        ]
      : []),
    ...(slow > 0
      ? [
          `${slow} of ${formatCount(image.layers.length, 'layer')} ${slow === 1 ? 'is' : 'are'} gzip, which is decoded from the first byte to the last by one core a layer: zstd:chunked would use all of them.`,
        ]
      : []),
  ];
}

/** Parts of a pull that take long for a reason of their own. */
export function shareAdvice({ other, resolve, prove }: Shares): string[] {
  const sentences: string[] = [];
  if (other > NOTABLE_SHARE) {
    sentences.push(
      `Starting the program, planning and publishing are ${percent(other)} of this pull: a larger image would say more.`,
    );
  }
  if (resolve > NOTABLE_SHARE)
    sentences.push(
      `Manifests and tokens are ${percent(resolve)} of the pull: answers of the registry are slow.`,
    );
  if (prove > NOTABLE_SHARE)
    sentences.push(
      `${percent(prove)} of the pull is spent after the last byte arrived: on what is not yet decoded, hashed and written.`,
    );
  return sentences;
}
