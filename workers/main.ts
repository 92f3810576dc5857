import { toFailure } from '../src/format/error.js';
import { asOutOfResources } from '../src/format/out-of-resources.js';
import type { Outcome, Results, Task } from '../src/pool/messages.js';

/** The task files, loaded when first needed: a thread that only hashes never loads an HTTP client. */
const handlers = {
  'measure-blob': async () => (await import('./measure-blob.js')).measureBlob,
  'read-metadata': async () => (await import('./read-metadata.js')).readMetadata,
  'look-up': async () => (await import('./look-up.js')).lookUp,
  'fetch-span': async () => (await import('./fetch-span.js')).fetchSpan,
  'fetch-raw': async () => (await import('./fetch-raw.js')).fetchRaw,
  'list-held': async () => (await import('./list-held.js')).listHeld,
  'decode-blob': async () => (await import('./decode-blob.js')).decodeBlob,
  'write-inline': async () => (await import('./write-inline.js')).writeInline,
  'verify-layer': async () => (await import('./verify-layer.js')).verifyLayer,
  'find-damage': async () => (await import('./find-damage.js')).findDamage,
  'check-layer': async () => (await import('./check-layer.js')).checkLayer,
  'copy-runs': async () => (await import('./copy-runs.js')).copyRuns,
  'export-layer': async () => (await import('./export-layer.js')).exportLayer,
  'write-archive': async () => (await import('./write-archive.js')).writeArchive,
  'copy-range': async () => (await import('./copy-range.js')).copyRange,
  'hash-file': async () => (await import('./hash-file.js')).hashFile,
  flatten: async () => (await import('./flatten-layers.js')).flattenLayers,
  'follow-layers': async () => (await import('./follow-layers.js')).followLayers,
  'unpack-files': async () => (await import('./unpack-files.js')).unpackFiles,
  'pick-tree': async () => (await import('./pick-tree.js')).pickTree,
  'write-picked': async () => (await import('./write-picked.js')).writePicked,
  'write-tar': async () => (await import('./write-tar.js')).writeTar,
  'make-directories': async () => (await import('./make-directories.js')).makeDirectories,
  'write-files': async () => (await import('./write-files.js')).writeFiles,
  'write-specials': async () => (await import('./write-specials.js')).writeSpecials,
  'finish-files': async () => (await import('./finish-files.js')).finishFiles,
  'name-content': async () => (await import('./name-content.js')).nameContent,
} as const satisfies Record<Task['task'], () => Promise<(task: never) => unknown>>;

/** Runs one task; what it throws becomes data. */
export async function runTask(task: Task): Promise<Outcome<Results[Task['task']]>> {
  try {
    const handler = (await handlers[task.task]()) as (task: Task) => Promise<Results[Task['task']]>;
    return { ok: true, value: await handler(task) };
  } catch (error) {
    return { ok: false, failure: toFailure(asOutOfResources(error)) };
  }
}
