import { verifyStore } from '../../api/store.js';
import type { StoreArguments } from '../commands/store.js';
import { formatCount } from '../format-text.js';
import { jsonLine } from '../printable.js';
import { untilSignal } from '../signals.js';
import { formatTable } from '../table.js';

const COLUMNS = [{ title: 'LAYER' }, { title: 'DAMAGED' }, { title: 'IMAGES' }];

/** As of every command that finds bytes which are not what their digest says. */
const DAMAGED_EXIT_CODE = 6;

/** `zpull store verify [IMAGE]`: prints what is damaged. */
export async function runVerify({ store, image, json, warn }: StoreArguments): Promise<number> {
  const result = await untilSignal((signal) =>
    verifyStore({ store, warn, signal, ...(image !== undefined && { image }) }),
  );
  const { checked, damaged } = result;
  if (json) process.stdout.write(jsonLine(result));
  else if (damaged.length === 0)
    process.stdout.write(`${formatCount(checked, 'layer')} checked, all whole\n`);
  else {
    const rows = damaged.map(({ diffId, path = '-', images }) => [diffId, path, images.join(', ') || '-']);
    process.stdout.write(formatTable(COLUMNS, rows));
    const layers = new Set(damaged.map(({ diffId }) => diffId)).size;
    process.stderr.write(`zpull: ${formatCount(layers, 'layer')} of ${checked} damaged\n`);
    process.stderr.write('hint: pull the images again: only what is damaged is fetched\n');
  }
  return damaged.length === 0 ? 0 : DAMAGED_EXIT_CODE;
}
