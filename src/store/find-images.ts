import { resolve } from 'node:path';
import { PullError } from '../format/error.js';
import { formatLocalImage, parseLocalImage } from '../format/local-image.js';
import { formatReference, parseReference } from '../format/reference.js';
import { type ImageRecord, listImageRecords } from './image-record.js';
import type { StorePaths } from './paths.js';

/**
 * The records of the image that `name` names as a pull of it would, one a platform.
 * @throws PullError `reference-malformed`; `image-not-found` when the store has none
 */
export function imagesNamed(paths: StorePaths, name: string): ImageRecord[] {
  const local = parseLocalImage(name, (path) => resolve(path));
  const reference = local === undefined ? formatReference(parseReference(name)) : formatLocalImage(local);
  const records = listImageRecords(paths).filter((record) => record.reference === reference);
  if (records.length > 0) return records;
  throw new PullError('image-not-found', `${reference} is not in the store ${paths.root}`, {
    hint: 'zpull store ls lists what is',
  });
}
