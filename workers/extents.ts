import type { ExtentRows } from '../src/pool/messages.js';
import { ExtentList, type ExtentRows as StoreRows } from '../src/store/extents.js';

/** Extents that came in a message, as the store reads them. */
export function extentsOf(rows: ExtentRows): ExtentList {
  return ExtentList.fromRows(rows as StoreRows);
}
