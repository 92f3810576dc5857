import { type CachedContentRows, listCachedContents } from '../../src/store/cached-contents.js';
import { paths } from '../context.js';

/** Lists once what all streams of a pull may share. */
export function listCached(): CachedContentRows {
  return listCachedContents(paths);
}
