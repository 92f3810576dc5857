import { mkdirSync, rmSync } from 'node:fs';
import type { Floor, FloorOptions } from './floor-child.js';
import { benchFile, lastJson, runNode } from './process.js';

/** Measures the floor in a process of its own; the files that it writes are removed. */
export async function runFloor(options: FloorOptions): Promise<Floor> {
  mkdirSync(options.directory, { recursive: true });
  try {
    return lastJson(await runNode([benchFile('floor-child.js'), JSON.stringify(options)])) as Floor;
  } finally {
    rmSync(options.directory, { recursive: true });
  }
}

/** CPU seconds of all parts. */
export function floorSeconds(floor: Floor): number {
  const { decode, hashLayers, hashContents, write, receive } = floor;
  return [decode, hashLayers, hashContents, write, receive].reduce((sum, cost) => sum + cost.cpuSeconds, 0);
}
