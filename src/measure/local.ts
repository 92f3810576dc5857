import { copyImage } from '../api/copy.js';
import { measureMachine, type PartMeasurement } from '../api/measure.js';
import { missingProgram } from './child.js';
import { type Context, NO_SETTING } from './context.js';
import { firstCore } from './machine.js';
import { callCommand, type Setting } from './pulls.js';
import type { Finding, Subject } from './recorder.js';

const WORKS = ['decode', 'hash', 'write'] as const;
const EXTENTS = ['one', 'all'] as const;
const MACHINE_IDS = WORKS.flatMap((work) => EXTENTS.map((extent) => `machine/${work}/${extent}`));
/** Everything that is measured without a network. */
export const LOCAL_IDS: readonly string[] = [
  ...MACHINE_IDS,
  ...EXTENTS.map((extent) => `machine/together/${extent}`),
];
const DONE: Readonly<Record<(typeof WORKS)[number], string>> = {
  decode: 'decode alone',
  hash: 'hash alone',
  write: 'write alone',
};

/** Copies the image into a layout, for what is measured without a network; undefined when it fails. */
export async function copyToLayout(context: Context): Promise<string | undefined> {
  const { options, image, recorder } = context;
  const { pull, signal } = options;
  context.announce({ id: 'machine', name: 'copying the image, for measurements without a network' });
  const path = context.newPath();
  try {
    const destination = { kind: 'layout' as const, path, tag: 'image' };
    await copyImage(image.pinned, { ...pull, documents: image.seed, destination, signal });
  } catch (error) {
    signal.throwIfAborted();
    context.fail('machine', error);
    context.expect(LOCAL_IDS, 0);
    return undefined;
  }
  if (!image.isLocal) {
    recorder.doubt(
      'the registry had sent every blob once before the first measurement: its caches were warm',
    );
  }
  return path;
}

/** Decoding, hashing and writing, each alone, on one core and on all. */
export async function measureMachineAlone(
  context: Context,
  layout: string,
  { workers }: Setting,
): Promise<void> {
  const { options, recorder } = context;
  const subjectOf = (work: (typeof WORKS)[number], extent: (typeof EXTENTS)[number]): Subject => ({
    ...NO_SETTING,
    id: `machine/${work}/${extent}`,
    stage: 'machine',
    name: `${DONE[work]}, ${extent === 'one' ? 'one core' : 'all cores'}`,
    workers: extent === 'one' ? 1 : workers,
  });
  const all = WORKS.flatMap((work) => EXTENTS.map((extent) => [work, extent] as const));
  const findingOf = ({ bytes, wallMs, cpuMs }: PartMeasurement, share: number): Finding => ({
    wallSeconds: (wallMs / 1000) * share,
    bytes: Math.round(bytes * share),
    cpuSeconds: (cpuMs / 1000) * share,
    peakMemoryBytes: null,
    stages: null,
    timeline: null,
  });
  for (let run = 0; run < options.runs; run++) {
    context.announce({ id: 'machine/decode/one', name: 'machine alone: decode, hash and write' });
    const around = context.watch();
    try {
      const found = await measureMachine(`oci:${layout}:image`, {
        store: options.directory,
        platform: context.image.platform,
        workers,
        signal: options.signal,
      });
      if (found.isPartial)
        recorder.doubt('decoding, hashing and writing alone was measured for the first 2 GB of the image');
      const cpuMs = all.reduce((sum, [work, extent]) => sum + found[work][extent].cpuMs, 0);
      const surroundings = around(cpuMs / 1000);
      for (const [work, extent] of all) {
        const { [extent]: part, one } = found[work];
        // Each thread does all of the work: the figures are what doing it once takes of that.
        const share = part.bytes === 0 ? 1 : one.bytes / part.bytes;
        recorder.add(subjectOf(work, extent), findingOf(part, share), surroundings);
      }
    } catch (error) {
      options.signal.throwIfAborted();
      context.expect(MACHINE_IDS, 0);
      return context.fail('machine', error);
    }
  }
}

/** The pull without a network: decode, hash and write all together, from the layout. */
export async function measureTogether(context: Context, layout: string, setting: Setting): Promise<void> {
  const subjectOf = (extent: (typeof EXTENTS)[number]): Subject => ({
    ...NO_SETTING,
    id: `machine/together/${extent}`,
    stage: 'machine',
    name: `no network, ${extent === 'one' ? 'one core' : 'all cores'}`,
    workers: extent === 'one' ? 1 : setting.workers,
  });
  const runOf = (workers: number, cores?: string) => (): Promise<Finding> =>
    context.withPath(context.newPath(), async (store) => {
      const words = ['pull', `oci:${layout}:image`, '--workers', String(workers)];
      const call = { words, store, isRemote: false };
      const { result: _, ...called } = await callCommand(context, { ...call, ...(cores && { cores }) });
      return { ...called, bytes: context.image.blobBytes };
    });
  const all = [{ subject: subjectOf('all'), run: runOf(setting.workers) }];
  if (missingProgram('taskset') === undefined) {
    await context.inTurns([{ subject: subjectOf('one'), run: runOf(1, firstCore()) }, ...all]);
  } else {
    context.recorder.doubt('nothing was measured on one core: taskset is not installed');
    await context.inTurns(all);
  }
}
