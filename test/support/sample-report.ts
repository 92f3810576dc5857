import type { Stages } from '../../src/api/stages.js';
import type { Report } from '../../src/measure/report.js';
import { statisticsOf } from '../../src/measure/statistics.js';
import { measurement, report } from './bench-report.js';

/** A report with a measurement of each kind that the page draws, whose figures are all different. */
export function sampleReport(): Report {
  const pull = (id: string, walls: number[]) => {
    const { runs, ...rest } = measurement(`pull/${id}`, walls, { cpuSeconds: (walls[0] ?? 0) * 1.7 });
    return {
      ...rest,
      peakMemoryBytes: statisticsOf([2e8, 2.1e8]),
      runs: runs.map((run) => ({ ...run, stages: stagesOf(run.wallSeconds) })),
    };
  };
  const doubts = ['the runs lie 19 % apart'];
  const measurements = [
    measurement('network/c1', [5.1, 5.2, 5.9]),
    measurement('network/c4', [1.61, 1.52, 1.55]),
    measurement('network/c16', [0.83, 0.81, 0.9]),
    measurement('machine/together/all', [1.03, 1.07, 1.11]),
    pull('w2/c16', [1.31, 1.29, 1.44]),
    pull('w2/c1', [5.3, 5.6, 5.4]),
    pull('w2/c4', [1.81, 1.83, 1.95]),
    pull('w1/c16', [1.51, 1.54, 1.6]),
    measurement('unchanged', [0.31, 0.3, 0.33]),
    measurement('peer/skopeo', [2.9, 2.4, 2.6], { doubts }),
  ];
  return {
    ...report(measurements, { against: ['skopeo'] }),
    peers: [
      {
        name: 'skopeo',
        version: '1.9.3',
        missing: null,
        command: 'skopeo copy docker://IMAGE dir:DIR',
        leaves: 'blobs',
        proves: 'digests of blobs',
      },
    ],
    verdict: VERDICT,
    doubts: ['other programs used 12 % of the processor'],
    errors: [{ measurement: 'export', code: 'store-full', message: 'no space left', hint: 'free some' }],
  };
}

const VERDICT: Report['verdict'] = {
  bound: 'processor',
  ratio: 0.82,
  reason: 'The processor is the limit: without a network the pull takes 1.07 s of its 1.31 s.',
  floorRatio: 1.6,
  shares: {
    resolve: 0.02,
    metadata: 0.08,
    fetchWait: 0.11,
    receive: 0.12,
    decode: 0.31,
    hash: 0.17,
    write: 0.09,
    sync: 0.03,
    prove: 0.02,
    other: 0.05,
  },
  best: { workers: 2, connections: 16, wallSeconds: 1.31 },
  default: { workers: 2, connections: 16, wallSeconds: 1.31, lossPercent: 0 },
  advice: ['More connections would not help.'],
};

function stagesOf(wallSeconds: number): Stages {
  const stage = (workShare: number, waitShare: number) => ({
    bytes: 1e8,
    wallMs: wallSeconds * 900,
    workMs: wallSeconds * 1000 * workShare,
    waitMs: wallSeconds * 1000 * waitShare,
  });
  return {
    resolve: stage(0.01, 0.05),
    metadata: stage(0.1, 0.06),
    fetch: stage(0.3, 0.25),
    decode: stage(0.8, 0),
    hash: stage(0.4, 0),
    write: stage(0.2, 0),
    sync: stage(0, 0.07),
    prove: stage(0, 0.04),
    threads: 3,
    workers: 2,
    connections: 16,
    limitRate: null,
    patienceSeconds: 1,
    peakMemoryBytes: 2e8,
    cpuSeconds: wallSeconds * 1.7,
    mainThreadBusy: 0.2,
  };
}
