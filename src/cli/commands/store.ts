import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { storeOf } from '../pull-options.js';

/** `zpull store path`: prints where the store is, whether it exists yet or not. */
export async function runStore(_words: readonly string[], options: OptionValues): Promise<number> {
  const store = storeOf(options, process.env);
  process.stdout.write(options.json === true ? jsonLine({ store }) : `${store}\n`);
  return 0;
}
