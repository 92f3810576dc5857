import { randomUUID } from 'node:crypto';
import type { NetworkSetup } from '../../src/pool/messages.js';
import { createLimits, createWaitBudget } from '../../src/registry/backoff.js';
import { createEndpointState, EndpointChoice } from '../../src/registry/endpoint-state.js';

/** The network of a test's threads, with one registry. */
export function networkSetup(options: Partial<NetworkSetup> = {}): NetworkSetup {
  const endpointState = createEndpointState();
  const limits = createLimits(1, 4);
  // Keeps threads from asking the main thread, which does not answer here, for redirect targets.
  new EndpointChoice(1, endpointState, limits).note(0, 'serves-itself');
  return {
    channel: randomUUID(),
    connections: 4,
    connectTimeoutMs: 5000,
    idleTimeoutMs: 5000,
    answerTimeoutMs: 5000,
    endpoints: [{ transport: { host: '127.0.0.1', tlsVerify: true, environment: {} }, repository: 'x' }],
    foreignTransport: { tlsVerify: true, environment: {} },
    endpointState,
    limits,
    waits: createWaitBudget(),
    userAgent: 'test',
    debug: false,
    ...options,
  };
}
