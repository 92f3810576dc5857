import type { Stages } from '../../src/api/stages.js';
import { type Measurement, REPORT_SCHEMA, type Report, type Run } from '../../src/measure/report.js';
import { statisticsOf } from '../../src/measure/statistics.js';

/** What a measurement of a made-up report took. */
interface Figures {
  readonly bytes?: number;
  readonly cpuSeconds?: number | null;
  readonly stages?: Stages | null;
  readonly doubts?: readonly string[];
}

const BLOB_BYTES = 100e6;
const TAR_BYTES = 250e6;

/** A measurement of these wall times, a run each; its id says the rest. */
export function measurement(id: string, walls: readonly number[], figures: Figures = {}): Measurement {
  const { bytes = BLOB_BYTES, cpuSeconds = null, stages = null, doubts = [] } = figures;
  const [stage = '', ...parts] = id.split('/');
  const numberOf = (letter: string) => {
    const part = parts.find((each) => new RegExp(`^${letter}\\d+$`).test(each));
    return part === undefined ? null : Number(part.slice(1));
  };
  const runs = walls.map((wallSeconds, i): Run => {
    const timeline = [0, 0.5, 1].map((share) => [share * wallSeconds * 1000, share * bytes] as const);
    const common = { startedAtMs: i * 1000, wallSeconds, bytes, cpuSeconds, foreignShare: null, stages };
    return { ...common, peakMemoryBytes: null, timeline };
  });
  return {
    id,
    stage: stage as Measurement['stage'],
    name: id.replaceAll('/', ', '),
    workers: numberOf('w'),
    connections: numberOf('c'),
    peer: stage === 'peer' ? parts[0]! : null,
    bytes,
    wallSeconds: statisticsOf(walls),
    bytesPerSecond: statisticsOf(walls.map((seconds) => bytes / seconds)),
    cpuSeconds: cpuSeconds === null ? null : statisticsOf(walls.map(() => cpuSeconds)),
    peakMemoryBytes: null,
    runs,
    doubts: [...doubts],
  };
}

/** Measurements of decoding, hashing and writing all tars, in seconds on all cores, and of all together. */
export function machine(seconds: Record<'decode' | 'hash' | 'write' | 'together', number>): Measurement[] {
  const { together, ...works } = seconds;
  return [
    ...Object.entries(works).map(([work, all]) =>
      measurement(`machine/${work}/all`, [all], { bytes: TAR_BYTES }),
    ),
    measurement('machine/together/all', [together]),
  ];
}

/** A complete report of these measurements, on a machine of two cores. */
export function report(
  measurements: readonly Measurement[],
  settings: Partial<Report['settings']> = {},
): Report {
  return {
    schema: REPORT_SCHEMA,
    zpull: '1.2.3',
    startedAt: '2026-11-30T08:00:00.000Z',
    complete: true,
    command: ['zpull', 'bench', 'registry.test/some/image:tag'],
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
      against: [],
      ...settings,
    },
    measurements: [...measurements],
    peers: [],
    verdict: null,
    doubts: [],
    errors: [],
  };
}
