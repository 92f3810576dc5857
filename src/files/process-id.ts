import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from './storage-error.js';

/** Age since the last change after which no process, on any machine, still uses something. */
const ABANDONED_MS = 24 * 3_600_000;

let namespaceId: string | undefined;

/**
 * Returns an id of this boot and PID namespace, within which PIDs can be compared; '' if unknown.
 */
export function pidNamespaceId(): string {
  if (namespaceId === undefined) {
    try {
      const start = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
      const namespace = readlinkSync('/proc/self/ns/pid');
      namespaceId = createHash('sha256').update(start).update(namespace).digest('hex').slice(0, 16);
    } catch {
      namespaceId = '';
    }
  }
  return namespaceId;
}

/** Returns whether a process has this PID; true if unknown. */
export function isProcessAlive(pid: number): boolean {
  if (pidNamespaceId() === '') return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}

/**
 * Returns whether the process that made a file or directory with its PID and namespace in the name
 * has left it behind. A PID is meaningless in another container or on another machine, and in
 * containers successive processes may have the same one. Then the ctime decides, which nobody can set.
 */
export function isLeftBehind(pid: number, namespace: string, ctimeMs: number): boolean {
  const isHere = namespace !== '' && namespace === pidNamespaceId();
  if (isHere && pid !== process.pid) return !isProcessAlive(pid);
  const agoMs = isHere ? 1000 * process.uptime() : ABANDONED_MS;
  return Date.now() - ctimeMs > agoMs;
}
