import {
  type RegistryOptions,
  type SandboxRegistry,
  startRegistry,
} from '../../src/sandbox/registry-server.js';
import { FIXTURE_LAYOUT } from './fixture-layout.js';
import type { Lifetime } from './temporary.js';

/** Names of a registry that tests reach through a proxy or not by loopback. */
const NAMES = ['registry.test', '0.0.0.0'];

/** A sandbox registry over the fixture layout, unless the options name another, that closes when the test ends. */
export async function startSandbox(
  t: Lifetime,
  options: Partial<RegistryOptions> = {},
): Promise<SandboxRegistry> {
  const registry = await startRegistry({ layout: FIXTURE_LAYOUT, names: NAMES, ...options });
  t.after(() => registry.close());
  return registry;
}
