import type { LayerFollower } from '../pool/layer-follower.js';
import type { TaskRunner, WorkerPool } from '../pool/worker-pool.js';
import type { Concurrency } from '../registry/backoff.js';
import type { EndpointChoice } from '../registry/endpoint-choice.js';
import type { PackId, StorePaths } from '../store/paths.js';
import type { DecodedAllowance, MetadataBudget } from './budgets.js';
import type { PullEvent } from './pull-events.js';
import type { Settings } from './pull-options.js';
import type { Patience } from './retry-policy.js';
import type { Stop } from './stop.js';

/** What the steps of one pull share. */
export interface PullContext {
  readonly settings: Settings;
  readonly paths: StorePaths;
  readonly stop: Stop;
  readonly patience: Patience;
  readonly concurrency: Concurrency;
  /** Which endpoints lack which blobs. */
  readonly endpoints: EndpointChoice;
  /** Memory for decoded metadata. */
  readonly metadata: MetadataBudget;
  readonly emit: (event: PullEvent) => void;
  /** The plan has changed, and so many more bytes are to be received. */
  readonly addTotal: (bytes: number) => void;
  /** Threads that read metadata, look up, write inline bytes and hash. */
  readonly support: WorkerPool;
  /** Starts threads that fetch ranges, in all `threads`; `mayShare`: the support threads fetch as well, unless there are more of them. */
  readonly startFetchers: (threads: number, mayShare: boolean) => Promise<TaskRunner>;
  /** What its layers may decode to. */
  readonly decoded: DecodedAllowance;
  /** Packs that nobody has a use for when the pull ends: deleted when its threads are gone. */
  readonly scrap: Set<PackId>;
  /** Packs in which a layer that failed for good was alone. */
  readonly failed: Set<PackId>;
  /** Packs that the threads of this pull write; sealed when it is done. */
  readonly packs: Set<PackId>;
  /** Told of each layer as it comes. */
  readonly follower?: LayerFollower | undefined;
}
