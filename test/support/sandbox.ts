import type { TestContext } from 'node:test';
import {
  type RegistryOptions,
  type SandboxRegistry,
  startRegistry,
} from '../../src/sandbox/registry-server.js';
import { FIXTURE_LAYOUT } from './fixture-layout.js';

/** A sandbox registry over the fixture layout, unless the options name another, that closes when the test ends. */
export async function startSandbox(
  t: TestContext,
  options: Partial<RegistryOptions> = {},
): Promise<SandboxRegistry> {
  const registry = await startRegistry({ layout: FIXTURE_LAYOUT, ...options });
  t.after(() => registry.close());
  return registry;
}
