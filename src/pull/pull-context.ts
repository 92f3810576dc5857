import type { LayerFollower } from '../pool/layer-follower.js';
import type { TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import type { Concurrency } from '../registry/backoff.js';
import type { EndpointChoice } from '../registry/endpoint-choice.js';
import type { PackId, StorePaths } from '../store/paths.js';
import type { DecodedAllowance, MetadataBudget } from './budgets.js';
import type { PullEvent } from './pull-events.js';
import type { Settings } from './pull-options.js';
import type { KarmaRetryPolicy } from './retry-policy.js';
import type { Stop } from './stop.js';

/** What the steps of one pull or copy share. */
export interface PullContext {
  readonly settings: Settings;
  readonly paths: StorePaths;
  readonly stop: Stop;
  readonly retries: KarmaRetryPolicy;
  readonly concurrency: Concurrency;
  /** Chooses endpoints, and knows which blobs each of them lacks. */
  readonly endpoints: EndpointChoice;
  /** Memory for decoded metadata. */
  readonly metadata: MetadataBudget;
  readonly emit: (event: PullEvent) => void;
  /** Adds bytes to the total to receive, after a change of the plan; negative to subtract. */
  readonly addTotal: (bytes: number) => void;
  /** Threads that read metadata, look up, write inline bytes and hash. */
  readonly support: WorkerPool;
  /**
   * Starts threads that fetch ranges. With `mayShare`, up to `threads` support threads are among
   * them.
   */
  readonly startFetchers: (threads: number, mayShare: boolean) => Promise<TaskRunner>;
  /** Limits what its layers decode to. */
  readonly decoded: DecodedAllowance;
  /** Packs without use after the pull; deleted when its threads have ended. */
  readonly scrap: Set<PackId>;
  /** Packs that contain only a layer that failed for good. */
  readonly failed: Set<PackId>;
  /** Packs that the threads of this pull write; sealed at its end. */
  readonly packs: Set<PackId>;
  /** Uses layers while they arrive. */
  readonly follower?: LayerFollower | undefined;
}
