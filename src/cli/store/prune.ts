import { pruneStore } from '../../api/store.js';
import type { StoreArguments } from '../commands/store.js';
import { formatBytes, formatCount } from '../format-text.js';
import { jsonLine } from '../printable.js';

/** `zpull store prune`: prints what was freed. */
export async function runPrune({ store, olderThanMs, json, warn }: StoreArguments): Promise<number> {
  const result = await pruneStore({ store, warn, ...(olderThanMs !== undefined && { olderThanMs }) });
  const { freedBytes, removedLayers, removedPacks, removedBlobs, rewrittenPacks, stoppedBy } = result;
  if (json) {
    process.stdout.write(jsonLine(result));
    return 0;
  }
  const what = [
    formatCount(removedLayers, 'layer'),
    formatCount(removedPacks, 'pack'),
    formatCount(removedBlobs, 'blob'),
  ].join(', ');
  const rewritten = rewrittenPacks === 0 ? '' : `; ${formatCount(rewrittenPacks, 'pack')} written anew`;
  process.stdout.write(`${formatBytes(freedBytes)} freed: ${what} removed${rewritten}\n`);
  if (stoppedBy !== null) {
    process.stderr.write(`zpull: stopped, as another process uses the store (${stoppedBy})\n`);
    process.stderr.write('hint: run it again later; what was freed stays so\n');
  }
  return 0;
}
