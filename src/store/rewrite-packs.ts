import { PullError } from '../format/error.js';
import { createCounters } from '../pool/counters.js';
import { WorkerPool } from '../pool/worker-pool.js';
import { writeAtomically } from './atomic-file.js';
import { requireSpace } from './disk-space.js';
import { ExtentList } from './extents.js';
import type { LayerFile } from './layer-files.js';
import { encodeLayerRecord, type LayerRecord, readRecordFile } from './layer-record.js';
import { removePack, sealPack } from './pack-sync.js';
import type { PackId, StorePaths } from './paths.js';
import { bytesOf, type Runs, runAround } from './runs.js';
import type { PackFiles, Sweep } from './sweep.js';

/** Sealed packs below this are put together: each costs every look-up an open file, and 64 are open at a time. */
const SMALL_PACK_BYTES = 4 * 2 ** 20;

/** A layer record that stays. */
export interface KeptRecord {
  readonly file: LayerFile;
  readonly record: LayerRecord;
}

/** A pack that goes, with what must stay of it. */
interface Source {
  readonly files: PackFiles;
  readonly runs: Runs;
}

/**
 * The packs that are worth writing anew: of which less than half is needed, and those that are small, if there are several.
 * One that has not all bytes that are needed of it stays as it is.
 */
export function worthRewriting(
  packs: readonly PackFiles[],
  needed: ReadonlyMap<PackId, Runs>,
  sweep: Sweep,
): Source[] {
  const whole = packs.flatMap((files) => {
    const runs = needed.get(files.id);
    if (runs === undefined || !sweep.mayGo(files.writtenMs)) return [];
    return runs.at(-1)! <= files.packBytes ? [{ files, runs }] : [];
  });
  const mostlyDead = whole.filter(({ files, runs }) => 2 * bytesOf(runs) < files.diskBytes);
  const small = whole.filter(
    (source) =>
      source.files.sealed && source.files.packBytes < SMALL_PACK_BYTES && !mostlyDead.includes(source),
  );
  // A single small one would be as small afterwards.
  return mostlyDead.length + small.length > 1 ? [...mostlyDead, ...small] : mostlyDead;
}

/**
 * Copies what is needed of these packs into a new one, has the layer records name that, and deletes the old ones. A disk
 * that is full ends it without an error: all is as it was, or the records say what is where.
 * @returns how many packs were replaced
 * @throws InUse, else PullError as `storageError`
 */
export async function rewritePacks(
  paths: StorePaths,
  sources: readonly Source[],
  records: readonly KeptRecord[],
  sweep: Sweep,
): Promise<number> {
  if (sources.length === 0) return 0;
  let copied: Copied | undefined;
  try {
    await requireSpace(
      paths.root,
      sources.reduce((sum, { runs }) => sum + bytesOf(runs), 0),
    );
    copied = await copy(paths, sources);
    await sealPack(paths, copied.pack);
    for (const { file, record } of records) {
      const extents = moved(record.extents, sources, copied);
      if (extents === undefined) continue;
      sweep.requireUnused();
      await writeAtomically(file.path, encodeLayerRecord({ ...record, extents }), true);
    }
  } catch (error) {
    if (copied !== undefined && !isNamed(copied.pack, records)) await removePack(paths, copied.pack);
    if (error instanceof PullError && error.code === 'store-full') return 0;
    throw error;
  }
  const names = [`${copied.pack}.pack`, `${copied.pack}.idx`, `${copied.pack}.bad`];
  sweep.freedBytes -= sweep.packFiles(copied.pack, names).diskBytes;
  for (const { files } of sources) await sweep.pack(files);
  return sources.length;
}

/** Whether one of the records names the pack by now. One that has its name may have failed after that. */
function isNamed(pack: PackId, records: readonly KeptRecord[]): boolean {
  return records.some(({ file }) => readRecordFile(file.path, file.diffId)?.extents.packs.includes(pack));
}

interface Copied {
  readonly pack: PackId;
  readonly starts: readonly Float64Array[];
}

/** In a thread of its own: the heart of the lease beats on meanwhile. */
async function copy(paths: StorePaths, sources: readonly Source[]): Promise<Copied> {
  const pool = await WorkerPool.start({
    threads: 1,
    tasksPerThread: 1,
    setup: { storeRoot: paths.root, counters: createCounters() },
    onEvent: () => {},
  });
  try {
    const { pack, starts } = await pool.run({
      task: 'copy-runs',
      sources: sources.map(({ files, runs }) => ({ pack: files.id, runs })),
    });
    return { pack: pack as PackId, starts };
  } finally {
    await pool.destroy();
  }
}

/** The extents with the new places of what was copied, or undefined if none of them was. */
function moved(
  extents: ExtentList,
  sources: readonly Source[],
  { pack, starts }: Copied,
): ExtentList | undefined {
  const rows = new Map(sources.map(({ files }, row) => [files.id, row]));
  if (!extents.packs.some((id) => rows.has(id))) return undefined;
  const list = new ExtentList();
  for (let i = 0; i < extents.count; i++) {
    const offset = extents.offsetAt(i);
    const length = extents.lengthAt(i);
    const source = rows.get(extents.packAt(i));
    if (source === undefined) {
      list.push(extents.packAt(i), offset, length);
      continue;
    }
    const { runs } = sources[source]!;
    const run = runAround(runs, offset, offset + length);
    list.push(pack, starts[source]![run]! + offset - runs[2 * run]!, length);
  }
  return list;
}
