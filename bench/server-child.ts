import { createInterface } from 'node:readline';
import { type RegistryOptions, startRegistry } from '../src/sandbox/registry-server.js';

// Options come as JSON in the first argument; the answer to any line on stdin is the CPU used so far; its end is ours.
const registry = await startRegistry(JSON.parse(process.argv[2] ?? '') as RegistryOptions);
tell({ host: registry.host });
for await (const _ of createInterface({ input: process.stdin })) tell({ cpu: process.cpuUsage() });
await registry.close();

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
