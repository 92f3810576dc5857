import { posix } from 'node:path';
import { cgroupPaths, readIfReadable } from './cores.js';

/** Other threads may have ended between the refusal and the look at the count. */
const MARGIN_THREADS = 8;
/** A thread of Node reserves a stack of 4 MB and address space for its heap. */
const MARGIN_KIB = 64 * 1024;

/**
 * Which limit keeps this process from starting a thread, as a hint: pids.max of its cgroup (kernel documentation, cgroup-v2,
 * "PID"; cgroup-v1, pids.txt), its address space, else its user's processes (getrlimit(2)). The system itself only says EAGAIN.
 */
export function threadLimitHint(): string {
  const pidsMax = smallestPidsMax();
  if (pidsMax !== undefined) {
    return `Raise the limit of processes and threads of the container, pids.max, which is ${pidsMax} (docker run --pids-limit).`;
  }
  const limits = readIfReadable('/proc/self/limits');
  const softLimit = (name: string) => Number(new RegExp(`^${name} +([0-9]+) `, 'm').exec(limits)?.[1]);
  const usedKiB = Number(/^VmSize:\s+([0-9]+) kB$/m.exec(readIfReadable('/proc/self/status'))?.[1]);
  if ((usedKiB + MARGIN_KIB) * 1024 > softLimit('Max address space')) {
    return 'Raise the limit of address space (ulimit -v): there is no room in it for the stack of a thread.';
  }
  const processes = softLimit('Max processes');
  const now = Number.isNaN(processes) ? '' : `, which is ${processes}`;
  return `Raise the limit of processes and threads of this user (ulimit -u${now}), or end other programs.`;
}

/** The limit of the cgroup, or of one above it, that is used up; undefined if none is. */
function smallestPidsMax(): number | undefined {
  for (const group of cgroupPaths(/^(?:0:|[0-9]+:pids):(.*)$/m)) {
    for (const root of ['/sys/fs/cgroup', '/sys/fs/cgroup/pids']) {
      const directory = posix.join(root, group);
      const [max, current] = ['pids.max', 'pids.current'].map((name) =>
        Number.parseInt(readIfReadable(posix.join(directory, name)), 10),
      );
      if (current! + MARGIN_THREADS > max!) return max;
    }
  }
  return undefined;
}
