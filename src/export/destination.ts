import { resolve } from 'node:path';
import { lookAtDirectory, requireDirectory, requireFile, requirePlace } from '../store/destination.js';

/**
 * Refuses a destination that no export can end well at, for whoever wants to know before a pull.
 * @throws PullError `option-malformed`, as the exports do, and as `storageError` when it cannot be looked at
 */
export function checkDestination(
  scheme: 'tar' | 'rootfs' | 'layers' | 'docker-archive',
  path: string,
  force: boolean,
): void {
  const place = resolve(path);
  if (scheme === 'rootfs') lookAtDirectory(place, force);
  else if (scheme === 'layers') requireDirectory(place);
  else if (scheme === 'docker-archive') requireFile(place);
  else requirePlace(place);
}
