import type { HeldRows } from '../../src/pool/messages.js';
import { listHeldContents } from '../../src/store/cached-contents.js';
import { paths } from '../context.js';

/** Lists once what all streams of a pull may share. */
export function listHeld(): HeldRows {
  return listHeldContents(paths);
}
