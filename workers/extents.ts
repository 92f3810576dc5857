import type { MessagePort } from 'node:worker_threads';
import type { ExtentRows } from '../src/pool/messages.js';
import { ExtentList, type ExtentRows as StoreRows } from '../src/store/extents.js';

/** Extents that came in a message, as the store reads them. */
export function extentsOf(rows: ExtentRows): ExtentList {
  return ExtentList.fromRows(rows as StoreRows);
}

/** What comes through a port, in order, until `null`. */
export async function* extentMessages(port: MessagePort): AsyncGenerator<ExtentRows> {
  const waiting: Array<ExtentRows | null> = [];
  let wake = () => {};
  port.on('message', (rows: ExtentRows | null) => {
    waiting.push(rows);
    wake();
  });
  for (;;) {
    const rows = waiting.shift();
    if (rows === null) return;
    if (rows !== undefined) yield rows;
    else {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
}
