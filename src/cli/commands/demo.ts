import type { OptionValues } from '../options.js';
export async function runDemo(_words: readonly string[], _options: OptionValues): Promise<number> {
  return 0;
}
