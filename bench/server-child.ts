import { type RegistryOptions, startRegistry } from '../src/sandbox/registry-server.js';

// Options come as JSON in the first argument; the answer to any message is the CPU seconds used so far.
const registry = await startRegistry(JSON.parse(process.argv[2] ?? '') as RegistryOptions);
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send!((user + system) / 1e6);
});
// Ctrl-C reaches it as well: the pull that is going on must not see it end.
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => {});
process.once('disconnect', () => void registry.close());
process.send!({ host: registry.host });
