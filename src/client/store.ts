import type { PullOptions, RunOptions } from '../pull/pull-options.js';
import type { RemovedImage } from '../store/image-record.js';
import type { StoreListing } from '../store/list.js';
import type { PruneResult } from '../store/prune.js';
import type { VerifyResult } from '../store/verify.js';

/** Looks after the store of a client. */
export interface ClientStore {
  /** Its root directory. */
  readonly path: string;
  /** The complete images, and blobs that a pull can continue. Writes nothing. @throws PullError */
  list(): Promise<StoreListing>;
  /**
   * Hashes every layer, or those of one image. A pull fetches what is damaged again.
   * @throws PullError `image-not-found`
   */
  verify(options?: { readonly image?: string; readonly signal?: AbortSignal }): Promise<VerifyResult>;
  /**
   * Frees what no image needs, including what interrupted pulls left. `olderThanMs` spares what was
   * written in the last so many milliseconds, `dryRun` deletes nothing. Ends at once while the store
   * is in use (`stoppedBy`).
   * @throws PullError
   */
  prune(options?: { readonly olderThanMs?: number; readonly dryRun?: boolean }): Promise<PruneResult>;
  /**
   * Removes an image on every platform. Its layers stay until `prune`.
   * @throws PullError `image-not-found`
   */
  remove(image: string): Promise<RemovedImage[]>;
}

/** `run` runs the work of a call, which ends with the client. */
export function createClientStore(
  path: string,
  run: <T>(
    call: Pick<PullOptions, 'signal'>,
    work: (options: Pick<RunOptions, 'store' | 'signal'>) => Promise<T>,
  ) => Promise<T>,
): ClientStore {
  return {
    path,
    list: () => run({}, async ({ store }) => (await import('../store/list.js')).listStore({ store })),
    verify: ({ image, ...call } = {}) =>
      run(call, async ({ store, signal }) => {
        const { verifyStore } = await import('../store/verify.js');
        return verifyStore({ store, ...(signal && { signal }), ...(image !== undefined && { image }) });
      }),
    prune: (options = {}) =>
      run({}, async ({ store }) => {
        const { pruneStore } = await import('../store/prune.js');
        return pruneStore({ store, ...options });
      }),
    remove: (image) =>
      run({}, async ({ store }) => {
        const { removeImage } = await import('../store/image-record.js');
        return removeImage({ store, image });
      }),
  };
}
