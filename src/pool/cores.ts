import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { posix } from 'node:path';

/**
 * The cores this process may use: the smaller of its affinity and its cgroup's CPU quota, rounded up
 * (`os.availableParallelism()` of Node 20 does not see the quota). At least 1.
 */
export function usableCores(): number {
  return Math.max(1, Math.min(availableParallelism(), cgroupCores()));
}

/**
 * The smallest quota of this process's cgroup and its ancestors (kernel documentation, cgroup-v2, "CPU"); Infinity
 * without one. bin/zpull.cjs does the same for libuv's pool, before any module can be loaded.
 */
function cgroupCores(): number {
  const [, group] = /^0::(.*)$/m.exec(read('/proc/self/cgroup')) ?? [];
  if (group === undefined) return Number.POSITIVE_INFINITY;
  let cores = Number.POSITIVE_INFINITY;
  for (let path = posix.join('/', group); ; path = posix.dirname(path)) {
    cores = Math.min(cores, parseCpuMax(read(posix.join('/sys/fs/cgroup', path, 'cpu.max'))));
    if (path === '/') return cores;
  }
}

/** The text of a file, or none: no Linux, no cgroup v2, no limit at this level. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Quota / period of a cgroup's cpu.max, in whole cores, rounded up; Infinity when it states no quota. */
export function parseCpuMax(text: string): number {
  const [quota, period] = text.trim().split(/\s+/).map(Number);
  const cores = Math.ceil((quota ?? Number.NaN) / (period ?? Number.NaN));
  return Number.isFinite(cores) && cores > 0 ? cores : Number.POSITIVE_INFINITY;
}
