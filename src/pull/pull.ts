import { PullError } from '../format/error.js';
import type { PullOptions, PullResult } from './options.js';

/** Pulls an image into the store. */
export async function pullImage(reference: string, options: PullOptions): Promise<PullResult> {
  throw new PullError('unsupported', `cannot pull ${reference} into ${options.store} yet`);
}
