#!/usr/bin/env node
'use strict';
// CommonJS, because libuv reads the size of its pool once, and an ES module's imports run before its first line.
const { readFileSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const { posix } = require('node:path');

/** Whole cores of the cgroup v2 quota that holds here, its ancestors' included; Infinity without one. */
function quotaCores() {
  let cores = Number.POSITIVE_INFINITY;
  try {
    const [, group = '/'] = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8')) ?? [];
    for (let path = posix.join('/', group); ; path = posix.dirname(path)) {
      try {
        const [quota, period] = readFileSync(`/sys/fs/cgroup${path}/cpu.max`, 'utf8').split(' ').map(Number);
        if (quota > 0 && period > 0) cores = Math.min(cores, Math.ceil(quota / period));
      } catch {
        // No quota at this level.
      }
      if (path === '/') return cores;
    }
  } catch {
    return cores; // No Linux.
  }
}

// Decoding runs on libuv's pool, and look-ups of names would queue behind it: 4 more than the cores.
process.env.UV_THREADPOOL_SIZE ||= String(Math.min(availableParallelism(), quotaCores()) + 4);
require('node:module').enableCompileCache?.();
import('../dist/src/cli/main.js').then(({ main }) => main(process.argv.slice(2)));
