import { type Measurement, REPORT_SCHEMA, type Report, type Run } from '../../src/measure/report.js';
import { statisticsOf } from '../../src/measure/statistics.js';

const BLOB_BYTES = 100e6;
const TAR_BYTES = 250e6;

/** A report with a measurement of every kind, and figures that are all different. */
export function sampleReport(): Report {
  const pull = (workers: number, connections: number, walls: number[]) =>
    measurement(`pull/w${workers}/c${connections}`, walls, { workers, connections, withStages: true });
  const network = (connections: number, walls: number[]) =>
    measurement(`network/c${connections}`, walls, { connections });
  return {
    schema: REPORT_SCHEMA,
    zpull: '1.2.3',
    startedAt: '2026-11-30T08:00:00.000Z',
    complete: true,
    command: ['zpull', 'bench', 'registry.test/some/image:tag', '--runs', '3', '--authfile', "it's here"],
    image: {
      reference: 'registry.test/some/image:tag',
      digest: `sha256:${'ab'.repeat(32)}`,
      platform: 'linux/amd64',
      blobBytes: BLOB_BYTES,
      tarBytes: TAR_BYTES,
      layers: [
        {
          digest: `sha256:${'cd'.repeat(32)}`,
          format: 'zstd:chunked',
          sizeBytes: BLOB_BYTES,
          tarBytes: TAR_BYTES,
        },
      ],
    },
    machine: {
      cores: 2,
      cpuModel: 'Some Processor 3000',
      memoryBytes: 16e9,
      kernel: 'Linux 6.1.0',
      node: '20.20.2',
      zstd: 'zstddec 0.3.4',
      fileSystem: 'ext4',
    },
    settings: {
      runs: 3,
      workers: [1, 2],
      connections: [1, 4, 16],
      stage: 'all',
      limitRate: null,
      from: null,
      against: ['skopeo'],
    },
    measurements: [
      network(1, [5.1, 5.2, 5.9]),
      network(4, [1.61, 1.52, 1.55]),
      network(16, [0.83, 0.81, 0.9]),
      measurement('machine/together/all', [1.03, 1.07, 1.11]),
      pull(2, 16, [1.31, 1.29, 1.44]),
      pull(2, 1, [5.3, 5.6, 5.4]),
      pull(2, 4, [1.81, 1.83, 1.95]),
      pull(1, 16, [1.51, 1.54, 1.6]),
      measurement('unchanged', [0.31, 0.3, 0.33]),
      measurement('peer/skopeo', [2.9, 2.4, 2.6], { peer: 'skopeo', doubts: ['the runs lie 19 % apart'] }),
    ],
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
    verdict: {
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
    },
    doubts: ['other programs used 12 % of the processor'],
    errors: [{ measurement: 'export', code: 'store-full', message: 'no space left', hint: 'free some' }],
  };
}

interface Details {
  readonly workers?: number;
  readonly connections?: number;
  readonly peer?: string;
  readonly withStages?: boolean;
  readonly doubts?: string[];
}

function measurement(id: string, walls: number[], details: Details = {}): Measurement {
  const { workers = null, connections = null, peer = null, withStages = false, doubts = [] } = details;
  const runs = walls.map((wallSeconds, i): Run => {
    const common = { startedAtMs: i * 10_000, wallSeconds, bytes: BLOB_BYTES, foreignShare: 0.01 };
    const stages = withStages ? stagesOf(wallSeconds) : null;
    return {
      ...common,
      cpuSeconds: wallSeconds * 1.7,
      peakMemoryBytes: 2e8 + i,
      stages,
      timeline: timelineOf(wallSeconds),
    };
  });
  return {
    id,
    stage: id.split('/')[0] as Measurement['stage'],
    name: id.replaceAll('/', ', '),
    workers,
    connections,
    peer,
    bytes: BLOB_BYTES,
    wallSeconds: statisticsOf(walls),
    bytesPerSecond: statisticsOf(walls.map((seconds) => BLOB_BYTES / seconds)),
    cpuSeconds: statisticsOf(walls.map((seconds) => seconds * 1.7)),
    peakMemoryBytes: statisticsOf(runs.map(({ peakMemoryBytes }) => peakMemoryBytes ?? 0)),
    runs,
    doubts,
  };
}

/** Ten times a second; slower at the beginning. */
function timelineOf(wallSeconds: number): Array<[number, number]> {
  const count = Math.ceil(wallSeconds * 10);
  return Array.from({ length: count }, (_, i) => {
    const share = (i + 1) / count;
    return [share * wallSeconds * 1000, Math.round(BLOB_BYTES * share ** 1.4)];
  });
}

function stagesOf(wallSeconds: number): Run['stages'] {
  const stage = (workShare: number, waitShare: number) => ({
    bytes: BLOB_BYTES,
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
