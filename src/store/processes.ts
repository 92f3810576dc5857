import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from '../files/storage-error.js';

let place: string | undefined;

/** A name for where numbers of processes mean the same: this start of this system, this namespace. Empty where none is known. */
export function placeOfProcesses(): string {
  if (place === undefined) {
    try {
      const start = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
      const namespace = readlinkSync('/proc/self/ns/pid');
      place = createHash('sha256').update(start).update(namespace).digest('hex').slice(0, 16);
    } catch {
      place = '';
    }
  }
  return place;
}

/** Whether a process has this number; also true where nobody can tell. */
export function hasProcess(pid: number): boolean {
  if (placeOfProcesses() === '') return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}
