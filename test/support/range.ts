import type { TestContext } from 'node:test';
import type { Digest } from '../../src/format/digest.js';
import { createLimits, createWaitBudget } from '../../src/registry/backoff.js';
import { createEndpointState } from '../../src/registry/endpoint-state.js';
import { fetchRange } from '../../src/registry/range.js';
import { createRangeClient, type RangeTotals } from '../../src/registry/range-client.js';
import { type RecordedEvents, recordEvents } from './scripted-server.js';

interface RangeOptions {
  readonly digest?: string;
  /** The size of the blob; the default range is all of it. */
  readonly sizeBytes: number;
  readonly range?: readonly [start: number, end: number];
  /** Connect, idle and answer timeout. */
  readonly timeoutMs?: number;
  /** Awaited for each chunk. */
  readonly take?: (chunk: Buffer) => void | Promise<void>;
  readonly events?: RecordedEvents;
}

interface Fetched {
  readonly bytes: Buffer;
  readonly totals: RangeTotals;
  readonly events: RecordedEvents;
}

/** Fetches a range of a blob as a thread of a pull does, over one connection, without a pause after a miss. */
export async function fetchBlob(t: TestContext, origin: string, options: RangeOptions): Promise<Fetched> {
  const { digest = `sha256:${'ab'.repeat(32)}`, sizeBytes, timeoutMs = 2000, take } = options;
  const { range: [start, end] = [0, sizeBytes], events = recordEvents() } = options;
  const transport = { host: '127.0.0.1', tlsVerify: true, environment: {} };
  const client = createRangeClient({
    connections: 1,
    connectTimeoutMs: timeoutMs,
    idleTimeoutMs: timeoutMs,
    answerTimeoutMs: timeoutMs,
    endpoints: [{ transport, repository: 'team/app' }],
    foreignTransport: { tlsVerify: true, environment: {} },
    endpointState: createEndpointState(),
    limits: createLimits(1, 1),
    waits: createWaitBudget(),
  });
  t.after(() => client.close());
  const chunks: Buffer[] = [];
  const totals = await fetchRange(client, {
    blob: { url: `${origin}/v2/team/app/blobs/${digest}`, digest: digest as Digest, sizeBytes },
    start,
    end,
    onBytes: (chunk) => {
      chunks.push(Buffer.from(chunk));
      return take?.(chunk);
    },
    events,
  });
  return { bytes: Buffer.concat(chunks), totals, events };
}
