import { inspectImage } from '../api/pull.js';
import { removeTree } from '../files/remove-tree.js';
import { Context, type MeasureOptions, type ResolvedImage, type Step } from './context.js';
import { bytesToFetch, type Grid, gridOf, isPart, settingsOf } from './grid.js';
import { copyToLayout, LOCAL_IDS, measureMachineAlone, measureTogether } from './local.js';
import { describeMachine, packageFacts } from './machine.js';
import { measureNetworks, networkId } from './network.js';
import { measurePeers, peerId } from './peers.js';
import {
  type KeptStore,
  measureExport,
  measurePulls,
  measureUnchanged,
  measureUpdate,
  pullId,
  pullInto,
  type Setting,
} from './pulls.js';
import { Recorder } from './recorder.js';
import { REPORT_SCHEMA, type Report } from './report.js';
import { resolveInto } from './resolve.js';
import { verdictOf } from './verdict.js';

/** The image, and how much the benchmark will fetch. */
export interface FetchPlan {
  readonly image: string;
  readonly digest: string;
  readonly blobBytes: number;
  /** The most that all runs together fetch: more connections are tried only while they help. */
  readonly fetchBytes: number;
}

export interface Hooks {
  /** Called when the image is known and nothing was fetched; throws to stop. */
  readonly confirm: (plan: FetchPlan) => Promise<void>;
  readonly onStep: (step: Step) => void;
  /** Called with the report as it is, first before anything was measured and then after each run. */
  readonly save: (report: Report) => void;
}

/**
 * Measures how an image is pulled: the network alone, this machine alone, and pulls in all kinds
 * of settings. A measurement that fails is an entry of the report's `errors`, and the others go on.
 * @throws PullError when the image cannot be resolved; the reason of an abort; what a hook throws
 */
export async function measureImage(options: MeasureOptions, hooks: Hooks): Promise<Report> {
  const [startedAt, startedMs] = [new Date(), performance.now()];
  const { stage, directory, signal, pull, runs } = options;
  const image = await resolveInto(options.image, options, 'seed');
  const from = options.from === undefined ? undefined : await resolveInto(options.from, options, 'seed-from');
  const { layers } = await inspectImage(image.pinned, { ...pull, store: image.seed, signal });
  const grid = gridOf(options, image.isLocal);
  const { version, zstd } = packageFacts(options.command);
  const report: Report = {
    schema: REPORT_SCHEMA,
    zpull: version,
    startedAt: startedAt.toISOString(),
    complete: false,
    command: options.commandLine,
    image: {
      reference: options.image,
      digest: image.digest,
      platform: image.platform,
      blobBytes: image.blobBytes,
      tarBytes: layers.reduce((sum, { tarBytes }) => sum + (tarBytes ?? 0), 0),
      layers: layers.map(({ digest, format, sizeBytes, tarBytes }) => ({
        digest,
        format,
        sizeBytes,
        tarBytes,
      })),
    },
    machine: describeMachine(directory, zstd),
    settings: {
      runs,
      workers: grid.workers,
      connections: grid.connections,
      stage,
      limitRate: pull.limitRate ?? null,
      from: options.from ?? null,
      against: options.against,
    },
    measurements: [],
    peers: [],
    verdict: null,
    doubts: [],
    errors: [],
  };
  const fetchBytes = bytesToFetch(options, grid, image, from);
  await hooks.confirm({ image: image.pinned, digest: image.digest, blobBytes: image.blobBytes, fetchBytes });
  const recorder = new Recorder(report, hooks.save, image.isLoopback);
  recorder.save();
  const context = new Context(options, { image, layers, startedMs }, recorder, hooks.onStep);
  await measureStages(context, grid, from);
  report.verdict = verdictOf(report);
  report.complete = true;
  recorder.save();
  return report;
}

async function measureStages(context: Context, grid: Grid, from: ResolvedImage | undefined): Promise<void> {
  const { stage, against } = context.options;
  const { usual } = grid;
  if (context.recorder.report.machine.fileSystem === 'tmpfs') {
    context.recorder.doubt('the stores are in memory (tmpfs): writing and syncing cost less than on a disk');
  }
  expectAll(context, grid, from);
  const layout = stage === 'all' ? await copyToLayout(context) : undefined;
  if (isPart(stage, 'network')) await measureNetworks(context, grid);
  if (layout !== undefined) {
    await measureMachineAlone(context, layout, usual);
    await measureTogether(context, layout, usual);
    removeTree(layout);
  }
  const kept: KeptStore = {};
  if (isPart(stage, 'pull')) {
    await measurePulls(context, settingsOf(grid), usual, kept);
    if (kept.path !== undefined) await measureUnchanged(context, usual, kept.path);
  }
  if (isPart(stage, 'export')) {
    const store = kept.path ?? (await pulledStore(context, usual));
    if (store !== undefined) kept.path = store;
    if (kept.path !== undefined) await measureExport(context, usual, kept.path);
  }
  if (kept.path !== undefined) removeTree(kept.path);
  if (isPart(stage, 'update') && from !== undefined) await measureUpdate(context, usual, from);
  if (isPart(stage, 'pull')) await measurePeers(context, against, usual);
}

/** Announces every measurement, so that the time left can be estimated from the first run on. */
function expectAll(context: Context, grid: Grid, from: ResolvedImage | undefined): void {
  const { stage, against } = context.options;
  const { isLocal } = context.image;
  const settings = settingsOf(grid);
  context.expect([
    ...(isPart(stage, 'network') && !isLocal ? grid.connections.map((number) => networkId(number)) : []),
    ...(stage === 'all' ? LOCAL_IDS : []),
    ...(isPart(stage, 'pull') ? [...settings.map(pullId), 'unchanged'] : []),
    ...(isPart(stage, 'export') ? ['export'] : []),
    ...(isPart(stage, 'update') && from !== undefined ? ['update'] : []),
    ...(isPart(stage, 'pull') && against.length > 0 && !isLocal
      ? ['peer/zpull', ...against.map(peerId)]
      : []),
  ]);
}

/** The store of a pull that is not measured; undefined when it fails. */
async function pulledStore(context: Context, setting: Setting): Promise<string | undefined> {
  context.announce({ id: 'export', name: 'pulling what is exported' });
  const store = context.freshStore(context.image);
  try {
    await pullInto(context, store, setting);
    return store;
  } catch (error) {
    context.options.signal.throwIfAborted();
    context.fail('export', error);
    return undefined;
  }
}
