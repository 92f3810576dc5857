import { type Digest, parseDigest } from '../../src/format/digest.js';
import type { Results, Task } from '../../src/pool/messages.js';
import { createCounters } from '../../src/pool/shared-memory.js';
import { StageRecorder } from '../../src/pool/stages.js';
import type { WorkerPool } from '../../src/pool/worker-pool.js';
import { DecodedAllowance, MetadataBudget } from '../../src/pull/budgets.js';
import type { ChunkedLayer } from '../../src/pull/layer.js';
import { LayerBoard } from '../../src/pull/layer-progress.js';
import { type PullContext, Stop } from '../../src/pull/pull-context.js';
import type { PullEvent } from '../../src/pull/pull-events.js';
import { resolveOptions } from '../../src/pull/pull-options.js';
import { KarmaRetryPolicy } from '../../src/pull/retry-policy.js';
import { Concurrency, createLimits } from '../../src/registry/backoff.js';
import { createEndpointState, EndpointChoice } from '../../src/registry/endpoint-state.js';
import { storePaths } from '../../src/store/paths.js';
import { tableOf } from './layer-tables.js';

const digestOf = (number: number): Digest =>
  parseDigest(`sha256:${String(number).padStart(64, '0')}`, 'digest');
const NOTHING = digestOf(0);

/** A pool without threads: `answer` returns the result of a task. */
export function fakePool(answer: (task: Task) => Promise<Results[keyof Results]>): WorkerPool {
  return { run: answer } as unknown as WorkerPool;
}

/** The context of a pull with nothing but this pool. */
export function fakeContext(options: { connections?: number; support: WorkerPool }): {
  context: PullContext;
  events: PullEvent[];
} {
  const { connections = 4, support } = options;
  const events: PullEvent[] = [];
  const stop = new Stop();
  const counters = createCounters();
  const store = '/nowhere';
  const context: PullContext = {
    settings: resolveOptions({ store, connections }),
    paths: storePaths(store),
    stop,
    retries: new KarmaRetryPolicy({
      tauMs: 1000,
      counters,
      stop,
      now: () => 0,
      onWait: () => {},
      onMiss: () => {},
    }),
    concurrency: new Concurrency(createLimits(1, connections)),
    endpoints: new EndpointChoice(1, createEndpointState(), createLimits(1, connections)),
    metadata: new MetadataBudget(),
    decoded: new DecodedAllowance(),
    scrap: new Set(),
    failed: new Set(),
    emit: (event) => events.push(event),
    addTotal: () => {},
    layers: new LayerBoard(),
    support,
    startFetchers: () => Promise.reject(new Error('nothing to fetch')),
    packs: new Set(),
    stages: new StageRecorder(),
  };
  return { context, events };
}

/** A layer with no content whose TOC and tar-split decode to so many bytes together; `number` tells blobs apart. */
export function fakeLayer(metadataRawBytes = 200, number = 0): ChunkedLayer {
  const uncompressedBytes = metadataRawBytes / 2;
  const toc = { start: 800, end: 850, uncompressedBytes, digest: NOTHING };
  const tarSplit = { start: 858, end: 900, uncompressedBytes, digest: NOTHING };
  return {
    blob: { url: 'http://127.0.0.1/', digest: digestOf(number), sizeBytes: 1000 },
    diffId: NOTHING,
    format: 'zstd:chunked',
    mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    compression: 'zstd',
    location: { by: 'annotations', dialect: '', toc, tarSplit },
    otherUrls: [],
    metadata: { format: 'zstd:chunked', table: tableOf([], 800, 1024), metadataBytes: 92, toc, tarSplit },
    cost: { fetchedBytes: 0, requests: 0 },
  };
}
