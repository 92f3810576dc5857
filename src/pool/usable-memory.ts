import { totalmem } from 'node:os';

/** The memory that this process may use: the machine's, or the limit of its container, in bytes. */
export function usableMemoryBytes(): number {
  // 0 and absurd numbers mean that there is no limit.
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}
