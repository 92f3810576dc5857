import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { posix } from 'node:path';

/**
 * The cores this process may use: the smaller of its affinity and its cgroup's CPU quota, rounded
 * up (`os.availableParallelism()` of Node 20 does not see the quota). At least 1.
 */
export function usableCores(): number {
  return Math.max(1, Math.min(availableParallelism(), cgroupCores()));
}

/**
 * The smallest quota of this process's cgroup and its ancestors (kernel documentation, cgroup-v2,
 * "CPU"); Infinity without one. bin/zpull.cjs does the same for libuv's pool, before any module can
 * be loaded.
 */
function cgroupCores(): number {
  let cores = Number.POSITIVE_INFINITY;
  for (const path of cgroupPaths(/^0::(.*)$/m))
    cores = Math.min(cores, parseCpuMax(readIfReadable(posix.join('/sys/fs/cgroup', path, 'cpu.max'))));
  return cores;
}

/**
 * Yields the path of this process's cgroup and those of its ancestors, up to `/`; nothing where
 * there are no cgroups.
 * @param line finds the path in `/proc/self/cgroup` (cgroups(7)) as its first group
 */
export function* cgroupPaths(line: RegExp): Generator<string, void, undefined> {
  const [, ownPath] = line.exec(readIfReadable('/proc/self/cgroup')) ?? [];
  if (ownPath === undefined) return;
  for (let path = posix.join('/', ownPath); ; path = posix.dirname(path)) {
    yield path;
    if (path === '/') return;
  }
}

/** Returns the text of a file, or an empty one: no Linux, or no such limit here. */
export function readIfReadable(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Quota / period of a cgroup's cpu.max, in whole cores, rounded up; Infinity when it states no
 * quota.
 */
export function parseCpuMax(text: string): number {
  const [quota, period] = text.trim().split(/\s+/).map(Number);
  const cores = Math.ceil((quota ?? Number.NaN) / (period ?? Number.NaN));
  return Number.isFinite(cores) && cores > 0 ? cores : Number.POSITIVE_INFINITY;
}

/** The memory that this process may use: the machine's, or the limit of its container, in bytes. */
export function usableMemoryBytes(): number {
  // 0 and absurd numbers mean that there is no limit.
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}
