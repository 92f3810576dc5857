import { join } from 'node:path';
import { type PullEvent, pullImage } from '../api/pull.js';
import type { MeasureOptions, ResolvedImage } from './context.js';

/** Whether a reference names an image in a layout or an archive on this machine. */
export function isLocal(reference: string): boolean {
  return /^oci(-archive)?:/.test(reference);
}

/** A registry on this machine. */
export const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/;

/**
 * Resolves an image into a store of its own, whose manifest and config all later pulls start from:
 * a registry that limits manifests counts one.
 * @throws PullError as `pullImage` up to the first layer
 */
export async function resolveInto(
  reference: string,
  { pull, directory, signal }: Pick<MeasureOptions, 'pull' | 'directory' | 'signal'>,
  name: string,
): Promise<ResolvedImage> {
  const seed = join(directory, name);
  const stop = new AbortController();
  let resolved: (PullEvent & { event: 'resolved' }) | undefined;
  try {
    await pullImage(reference, {
      ...pull,
      store: seed,
      signal: AbortSignal.any([signal, stop.signal]),
      onEvent: (event) => {
        if (event.event !== 'resolved') return;
        resolved = event;
        stop.abort();
      },
    });
  } catch (error) {
    signal.throwIfAborted();
    if (resolved === undefined) throw error;
  }
  const { image, digest, platform, totalBytes } = resolved!;
  const isOnMachine = isLocal(image);
  return {
    pinned: isOnMachine ? image : `${image.replace(/@sha256:[0-9a-f]{64}$/, '')}@${digest}`,
    digest,
    platform,
    blobBytes: totalBytes,
    seed,
    isLocal: isOnMachine,
    isLoopback: LOOPBACK.test(image.split('/', 1)[0] ?? ''),
  };
}
