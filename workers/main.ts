import { asOutOfResources } from '../src/files/storage-error.js';
import { toFailure } from '../src/format/error.js';
import type { Outcome, Results, Task } from '../src/pool/messages.js';
import { threadClock } from '../src/pool/stage-clock.js';

/**
 * Loads each task when it is first needed: a thread that only hashes never loads an HTTP client.
 */
const handlers = {
  'measure-blob': async () => (await import('./fetch/fetch-opaque.js')).measureBlob,
  'read-metadata': async () => (await import('./metadata/read-metadata.js')).readMetadata,
  'look-up': async () => (await import('./metadata/look-up.js')).lookUp,
  'fetch-span': async () => (await import('./fetch/fetch-span.js')).fetchSpan,
  'fetch-opaque': async () => (await import('./fetch/fetch-opaque.js')).fetchOpaque,
  'list-cached': async () => (await import('./metadata/look-up.js')).listCached,
  'decode-blob': async () => (await import('./opaque/decode-blob.js')).decodeBlob,
  'write-inline': async () => (await import('./metadata/read-metadata.js')).writeInline,
  'verify-layer': async () => (await import('./check/verify-layer.js')).verifyLayer,
  'find-damage': async () => (await import('./check/find-damage.js')).findDamage,
  'check-layer': async () => (await import('./check/check-layer.js')).checkLayer,
  'copy-runs': async () => (await import('./check/check-layer.js')).copyRuns,
  'export-layer': async () => (await import('./export/write-tar.js')).exportLayer,
  'stream-layer': async () => (await import('./export/write-tar.js')).streamLayer,
  'write-archive': async () => (await import('./export/write-tar.js')).writeArchive,
  'load-client': async () => (await import('./fetch/range-client.js')).loadClient,
  'copy-range': async () => (await import('./fetch/copy-range.js')).copyRange,
  'hash-file': async () => (await import('./check/verify-layer.js')).hashFile,
  flatten: async () => (await import('./export/layer-sources.js')).flattenLayers,
  'follow-layers': async () => (await import('./export/follow-layers.js')).followLayers,
  'unpack-files': async () => (await import('./export/write-files.js')).unpackFiles,
  'find-cover': async () => (await import('./export/layer-sources.js')).findCover,
  'keep-files': async () => (await import('../src/export/early-files.js')).keepFiles,
  'pick-tree': async () => (await import('./export/layer-sources.js')).pickTree,
  'write-picked': async () => (await import('./export/write-tar.js')).writePicked,
  'write-tar': async () => (await import('./export/write-tar.js')).writeTar,
  'make-directories': async () => (await import('./export/tree-directories.js')).makeDirectories,
  'write-files': async () => (await import('./export/write-files.js')).writeFiles,
  'write-specials': async () => (await import('./export/write-specials.js')).writeSpecials,
  'finish-files': async () => (await import('./export/tree-directories.js')).finishFiles,
  'measure-read': async () => (await import('./measure/measure-decode.js')).measureRead,
  'measure-decode': async () => (await import('./measure/measure-decode.js')).measureDecode,
  'measure-hash': async () => (await import('./measure/measure-bytes.js')).measureHash,
  'measure-write': async () => (await import('./measure/measure-bytes.js')).measureWrite,
  'name-content': async () => (await import('./metadata/look-up.js')).nameContent,
} as const satisfies Record<Task['task'], () => Promise<(task: never) => unknown>>;

/**
 * Tasks that belong to one stage as a whole, less what their code adds to other stages. Those that
 * write are tasks of exports, whose threads run one task at a time.
 */
const STAGES: Partial<Record<Task['task'], 'metadata' | 'write'>> = {
  'measure-blob': 'metadata',
  'read-metadata': 'metadata',
  'look-up': 'metadata',
  'list-cached': 'metadata',
  flatten: 'metadata',
  'follow-layers': 'metadata',
  'find-cover': 'metadata',
  'pick-tree': 'metadata',
  'export-layer': 'write',
  'stream-layer': 'write',
  'write-archive': 'write',
  'unpack-files': 'write',
  'keep-files': 'write',
  'write-tar': 'write',
  'make-directories': 'write',
  'write-files': 'write',
  'write-specials': 'write',
  'finish-files': 'write',
};

/** Runs one task. Its error becomes data. */
export async function runTask(task: Task): Promise<Outcome<Results[Task['task']]>> {
  try {
    const handler = (await handlers[task.task]()) as (task: Task) => Promise<Results[Task['task']]>;
    return { ok: true, value: await inStage(STAGES[task.task], () => handler(task)) };
  } catch (error) {
    return { ok: false, failure: toFailure(asOutOfResources(error)) };
  }
}

async function inStage<T>(stage: 'metadata' | 'write' | undefined, run: () => Promise<T>): Promise<T> {
  if (stage === undefined) return run();
  if (stage === 'metadata') return threadClock.within(stage, run);
  const started = threadClock.start();
  const result = await run();
  threadClock.end(stage, started, 0);
  return result;
}
