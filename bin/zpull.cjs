#!/usr/bin/env node
'use strict';
// CommonJS, because libuv reads the size of its pool once, and an ES module's imports run before its first line.
const { readFileSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const { posix } = require('node:path');
const { setFlagsFromString } = require('node:v8');

/** The text of a file, or none: no Linux, no cgroup v2, no limit at this level. */
function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The cgroup v2 of this process and those above it. */
function* cgroups() {
  const [, group = '/'] = /^0::(.*)$/m.exec(read('/proc/self/cgroup')) ?? [];
  for (let path = posix.join('/', group); ; path = posix.dirname(path)) {
    yield posix.join('/sys/fs/cgroup', path);
    if (path === '/') return;
  }
}

/** Whole cores of the cgroup quota that holds here, those above included; Infinity without one. */
function quotaCores() {
  let cores = Number.POSITIVE_INFINITY;
  for (const group of cgroups()) {
    const [quota, period] = read(`${group}/cpu.max`).split(' ').map(Number);
    if (quota > 0 && period > 0) cores = Math.min(cores, Math.ceil(quota / period));
  }
  return cores;
}

/** Whether this user, or this container, may hardly have so many more threads. What other processes of the user have is not counted. */
function hasFewerThreadsThan(threads) {
  const [, processes] = /^Max processes +(\d+) /m.exec(read('/proc/self/limits')) ?? [];
  if (Number(processes) < threads + NODE_THREADS) return true;
  for (const group of cgroups()) {
    const left =
      Number.parseInt(read(`${group}/pids.max`), 10) - Number.parseInt(read(`${group}/pids.current`), 10);
    if (left < threads) return true;
  }
  return false;
}

/** What Node itself has started by now. */
const NODE_THREADS = 7;

// Decoding runs on libuv's pool, and look-ups of names would queue behind it: 4 more than the cores. libuv aborts the process when it cannot
// start one of them; of a worker thread that cannot start zpull can say so. It has up to two a core, and some besides.
const cores = Math.min(availableParallelism(), quotaCores());
process.env.UV_THREADPOOL_SIZE ||= hasFewerThreadsThan(3 * cores + 10) ? '1' : String(cores + 4);
// Of the threads that @mongodb-js/zstd starts for each core it uses none.
process.env.TOKIO_WORKER_THREADS ||= '1';
// Threads have heaps of 10 MB. V8 would start with less, and mark all of it whenever 64 MB of buffers have come and gone.
setFlagsFromString('--initial-old-space-size=32');
// The parser of HTTP answers (undici's, in WebAssembly) runs a few thousand times a copy. To optimize its one large function takes 38 MB for a moment, and
// 0.1 to 0.3 s of CPU time. Threads of a pull decode zstd in WebAssembly, too, which has to be optimized.
if (process.argv[2] === 'copy') setFlagsFromString('--wasm-tiering-budget=2000000000');
require('node:module').enableCompileCache?.();
require('../dist/bundle/cli/main.cjs').main(process.argv.slice(2));
