import fs = require('node:fs');
import threads = require('node:worker_threads');

/** The pipe from which the parent process reads what this one cost. */
const METER_FD = 3;

// Loaded before the command, which knows nothing of it; its threads load this as well.
if (threads.isMainThread) {
  process.once('exit', () => {
    fs.writeSync(METER_FD, JSON.stringify({ cpu: process.cpuUsage(), maxRssKib: peakKib() }));
  });
}

/**
 * The largest resident size of this process. getrusage(2) includes the size before exec, which is that of the
 * parent; Linux has the figure of the program alone.
 */
function peakKib(): number {
  try {
    const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(fs.readFileSync('/proc/self/status', 'utf8')) ?? [];
    if (kib !== undefined) return Number(kib);
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS;
}
