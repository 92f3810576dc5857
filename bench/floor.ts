import { mkdirSync, rmSync } from 'node:fs';
import type { Floor, FloorOptions } from './floor-child.js';
import { benchFile, canPin, lastJson, runNode } from './process.js';

/**
 * Measures the floor in a process of its own; the files that it writes are removed. On one core, where that can be had:
 * decoding on a thread of another core than the one that uses the bytes takes up to 1.5 times the CPU.
 */
export async function runFloor(options: FloorOptions): Promise<Floor> {
  mkdirSync(options.directory, { recursive: true });
  try {
    const args = [benchFile('floor-child.js'), JSON.stringify(options)];
    return lastJson(await runNode(args, canPin('0') ? '0' : undefined)) as Floor;
  } finally {
    rmSync(options.directory, { recursive: true });
  }
}

/** CPU seconds of all parts. */
export function floorSeconds(floor: Floor): number {
  const { decode, hash, write, receive } = floor;
  return [decode, hash, write, receive].reduce((sum, cost) => sum + cost.cpuSeconds, 0);
}
