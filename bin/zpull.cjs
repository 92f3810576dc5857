#!/usr/bin/env node
'use strict';
// CommonJS: libuv reads the size of its pool once, and the imports of an ES module would run before
// it is set.
const { readFileSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const { posix } = require('node:path');
const { setFlagsFromString } = require('node:v8');

/** Threads that Node itself has started by now. */
const NODE_THREADS = 7;

/** The text of a file; empty without Linux, without cgroup v2 and where a level has no limit. */
function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The cgroup v2 of this process and its ancestors. */
function* cgroups() {
  const [, group = '/'] = /^0::(.*)$/m.exec(read('/proc/self/cgroup')) ?? [];
  for (let path = posix.join('/', group); ; path = posix.dirname(path)) {
    yield posix.join('/sys/fs/cgroup', path);
    if (path === '/') return;
  }
}

/** The smallest cgroup quota that applies, in cores, rounded up; Infinity without one. */
function quotaCores() {
  let cores = Number.POSITIVE_INFINITY;
  for (const group of cgroups()) {
    const [quota, period] = read(`${group}/cpu.max`).split(' ').map(Number);
    if (quota > 0 && period > 0) cores = Math.min(cores, Math.ceil(quota / period));
  }
  return cores;
}

/**
 * Whether the limits of this user or container leave fewer than `threads` threads. Other processes
 * of the user are not counted.
 */
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

// Decoding runs on libuv's pool, and DNS look-ups would queue behind it: the pool has 4 threads
// more than there are cores. libuv aborts the process when it cannot start one; when a worker
// thread cannot start, zpull reports it. It starts up to two a core and some more.
const cores = Math.min(availableParallelism(), quotaCores());
process.env.UV_THREADPOOL_SIZE ||= hasFewerThreadsThan(3 * cores + 10) ? '1' : String(cores + 4);
// @mongodb-js/zstd starts a thread for each core and uses none.
process.env.TOKIO_WORKER_THREADS ||= '1';
// Threads have heaps of 10 MB. By default V8 starts smaller, and marks all of it whenever 64 MB of
// buffers were allocated and freed.
setFlagsFromString('--initial-old-space-size=32');
// The parser of HTTP answers (undici's, in WebAssembly) runs a few thousand times a copy. To
// optimize its one large function takes 38 MB for a moment, and 0.1 to 0.3 s of CPU time. Threads
// of a pull decode zstd in WebAssembly, too, which has to be optimized.
if (process.argv[2] === 'copy') setFlagsFromString('--wasm-tiering-budget=2000000000');
if (process.argv.includes('--debug')) process.setSourceMapsEnabled(true);
require('node:module').enableCompileCache?.();
require('../dist/bundle/cli/main.cjs').main(process.argv.slice(2));
