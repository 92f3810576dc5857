import { medianOf } from '../../src/measure/statistics.js';
import { type Bench, coldPull, eachRun, recordWanted, wants } from '../context.js';
import { type Sample, smallFilesSample, treeSample } from '../sample.js';
import { withServer } from '../server.js';

/** 4 GiB and about 0.5 GiB of tar. */
const LARGE_FILES = 80_000;
const SMALL_FILES = 120_000;

/** Row 9: the largest resident size of cold pulls. */
export async function memory(bench: Bench): Promise<void> {
  if (!wants(bench, 9)) return;
  const { workDir, files } = bench.options;
  const baseBytes = await peaks(bench, await treeSample(workDir, files, 1));
  recordWanted(bench, '9a', baseBytes);
  const samples = {
    '9b': () => treeSample(workDir, LARGE_FILES, 1),
    '9c': () => smallFilesSample(workDir, SMALL_FILES),
  };
  for (const [id, sample] of Object.entries(samples)) {
    if (!bench.options.large) {
      bench.report.skip(id, 'needs --large');
      continue;
    }
    const bytes = await peaks(bench, await sample());
    const ratios = bytes.map((each) => each / medianOf(baseBytes));
    recordWanted(bench, id, ratios, `${(medianOf(bytes) / 1e6).toFixed(0)} MB`);
  }
}

async function peaks(bench: Bench, sample: Sample): Promise<number[]> {
  return withServer({ layout: sample.layoutDir }, async (server) => {
    const bytes: number[] = [];
    for (const _ of eachRun(bench, `peak memory of ${sample.layoutDir}`)) {
      const run = await coldPull(bench, server, { ...sample, workers: 2, connections: 16 });
      bytes.push(run.peakMemoryBytes);
    }
    return bytes;
  });
}
