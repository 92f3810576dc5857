import { PullError } from '../format/error.js';
import type { PullOptions } from '../pull/options.js';

/** Writes each layer's tar of an image into a directory, named by its DiffID. */
export async function exportLayers(
  reference: string,
  directory: string,
  options: PullOptions,
): Promise<{ destination: string }> {
  throw new PullError('unsupported', `cannot export ${reference} from ${options.store} to ${directory} yet`);
}
