import { missingProgram } from '../src/measure/child.js';
import { firstCore } from '../src/measure/machine.js';
import { type Bench, newPath } from './context.js';
import type { Floor, FloorOptions } from './floor-child.js';
import { readLayers } from './layer-toc.js';
import { benchFile, failed, runNode } from './process.js';
import type { Sample } from './sample.js';

/**
 * Measures the floor in a process of its own. On one core, where that can be had: decoding on a thread of another core
 * than the one that uses the bytes takes up to 1.5 times the CPU.
 */
export async function runFloor(bench: Bench, sample: Sample, host: string): Promise<Floor> {
  const told: FloorOptions = {
    image: `oci:${sample.layoutDir}:${sample.ref}`,
    host,
    digests: readLayers(sample).map(({ descriptor }) => descriptor.digest),
    store: newPath(bench),
  };
  const core = missingProgram('taskset') === undefined ? firstCore() : undefined;
  const ended = await runNode([benchFile('floor-child.js'), JSON.stringify(told)], core);
  if (ended.code !== 0) throw failed('the floor', ended);
  return JSON.parse(ended.stdout) as Floor;
}

/** CPU seconds of all parts, for so many bytes of tar: of more than 2 GB, the first are measured. */
export function floorSeconds({ decode, hash, write, receive }: Floor, tarBytes: number): number {
  const rest = [decode, hash, write].map(({ bytes, cpuSeconds }) => (cpuSeconds / bytes) * tarBytes);
  return rest.reduce((sum, seconds) => sum + seconds, receive.cpuSeconds);
}
