import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CopyRunsResult, CopyRunsTask } from '../../src/pool/messages.js';
import { copyRuns as copyInStore } from '../../src/store/copy-runs.js';
import { removePack } from '../../src/store/pack-files.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { paths } from '../context.js';

/** Copies runs of packs into a new pack, which is deleted after an error. */
export async function copyRuns(task: CopyRunsTask): Promise<CopyRunsResult> {
  const reader = new PackReader(paths);
  const writer = new PackWriter(paths);
  const { pack } = writer.reserve(0);
  try {
    const copying = copyInStore(paths, reader, writer, task.sources);
    for (;;) {
      const step = copying.next();
      if (step.done === true) {
        writer.close();
        return { pack, starts: step.value };
      }
      await nextTurn();
    }
  } catch (error) {
    await removePack(paths, pack);
    throw error;
  } finally {
    reader.close();
  }
}
