import type { Failure } from '../format/error.js';
import type { RangeClientOptions } from '../registry/range-client.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import type * as layer from './layer-tasks.js';
import type * as measure from './measure-tasks.js';
import type * as pull from './pull-tasks.js';
import type * as rootfs from './rootfs-tasks.js';
import type { RateLimit } from './shared-memory.js';
import type { StageRows } from './stage-clock.js';

export type * from './layer-tasks.js';
export type * from './measure-tasks.js';
export type * from './pull-tasks.js';
export type * from './rootfs-tasks.js';

/**
 * The tasks of the threads: by name, the message that starts one, and its result. A failure comes
 * back as an `Outcome`. Events come from a running task at any time, even after its outcome: the
 * main thread uses them as hints and takes totals from results.
 */
interface Tasks {
  'measure-blob': [pull.MeasureBlobTask, pull.MeasureBlobResult];
  'fetch-span': [pull.FetchSpanTask, pull.FetchSpanResult];
  'write-inline': [pull.WriteInlineTask, pull.PackRun];
  'load-client': [pull.LoadClientTask, undefined];
  'copy-range': [pull.CopyRangeTask, pull.CopyRangeResult];
  'hash-file': [pull.HashFileTask, pull.HashFileResult];
  'name-content': [pull.NameContentTask, string];

  'read-metadata': [pull.ReadMetadataTask, pull.ReadMetadataResult];
  'look-up': [pull.LookUpTask, pull.LookUpResult];

  'fetch-opaque': [pull.FetchOpaqueTask, pull.FetchOpaqueResult];
  'list-cached': [pull.ListCachedTask, CachedContentRows];
  'decode-blob': [pull.DecodeBlobTask, pull.DecodeBlobResult];

  'verify-layer': [layer.VerifyLayerTask, layer.VerifyLayerResult];
  'find-damage': [layer.FindDamageTask, layer.FindDamageResult];
  'check-layer': [layer.CheckLayerTask, layer.CheckLayerResult];
  'copy-runs': [layer.CopyRunsTask, layer.CopyRunsResult];

  'export-layer': [layer.ExportLayerTask, layer.ExportLayerResult];
  'stream-layer': [layer.StreamLayerTask, layer.ExportLayerResult];
  'write-archive': [layer.WriteArchiveTask, layer.WriteArchiveResult];
  flatten: [layer.FlattenTask, layer.TreeRows];
  'write-tar': [layer.WriteTarTask, layer.WriteTarResult];
  'find-cover': [layer.FindCoverTask, layer.FindCoverResult];
  'pick-tree': [layer.PickTreeTask, layer.TreeRows];
  'write-picked': [layer.WritePickedTask, layer.WritePickedResult];

  'follow-layers': [rootfs.FollowLayersTask, layer.TreeRows | null];
  'unpack-files': [rootfs.UnpackFilesTask, rootfs.UnpackFilesResult];
  'keep-files': [rootfs.KeepFilesTask, Uint8Array];
  'make-directories': [rootfs.MakeDirectoriesTask, undefined];
  'write-files': [rootfs.WriteFilesTask, undefined];
  'write-specials': [rootfs.WriteSpecialsTask, rootfs.WriteSpecialsResult];
  'finish-files': [rootfs.FinishFilesTask, undefined];

  'measure-read': [measure.MeasureReadTask, undefined];
  'measure-decode': [measure.MeasureDecodeTask, measure.MeasureDecodeResult];
  'measure-hash': [measure.MeasureHashTask, measure.MeasuredWork];
  'measure-write': [measure.MeasureWriteTask, measure.MeasuredWork];
}

export type Task = Tasks[keyof Tasks][0];

/** The result of each task. */
export type Results = { [Name in keyof Tasks]: Tasks[Name][1] };

/**
 * How a task ended. An Error would lose its class and its code between threads, so a failure is
 * data.
 */
export type Outcome<Result> =
  | { readonly ok: true; readonly value: Result }
  | { readonly ok: false; readonly failure: Failure };

/** What a thread receives when it is started: Node's workerData. */
export interface WorkerSetup {
  readonly storeRoot: string;
  /** Whether the store must not be written to. */
  readonly isReadOnly?: boolean;
  readonly counters: Uint32Array<SharedArrayBuffer>;
  /** For calls whose results have stages. */
  readonly stageRows?: StageRows;
  /** Limits what all threads together receive. */
  readonly rateLimit?: RateLimit;
  /**
   * For pools that write to a store whose disk has files that the main thread can delete: 1 once
   * they are deleted. A thread that finds the disk full reports it and waits for that.
   */
  readonly spareRoom?: Int32Array<SharedArrayBuffer>;
  /** For pools that fetch. */
  readonly network?: NetworkSetup;
  /** For pools that export a file system: the layers of the image, lowest first. */
  readonly layers?: readonly layer.ExportedLayer[];
}

/** How a thread requests blobs. */
export interface NetworkSetup extends Omit<RangeClientOptions, 'sharedTargets' | 'turnLimits'> {
  /** Name of the BroadcastChannel on which the main thread answers. */
  readonly channel: string;
  /** Whether blobs are files on this machine, except for foreign ones. */
  readonly isLocal?: true;
  /** Whether to report each request. */
  readonly debug: boolean;
  /**
   * Value of the Authorization header at the first endpoint, if it requires one, and the Unix time
   * from which on it is renewed before use.
   */
  readonly authorization?: { readonly value: string; readonly expiresAtMs: number };
}

/** The wait between a miss and the next request; the main thread may end it sooner. */
export const RETRY_WAIT_MS = 1000;

/** From a worker while a task runs. */
export type WorkerEvent =
  /**
   * A request failed. `host` is the server, `sign` whether it is alive nevertheless or a timeout
   * ended the request, `hint` what the user can do.
   */
  | {
      readonly event: 'miss';
      readonly message: string;
      readonly hint?: string | undefined;
      readonly host?: string;
      readonly sign?: 'alive' | 'silent' | undefined;
    }
  /**
   * A request loop has started, or stopped, making requests: a wait that the server requested
   * counts as stopped.
   */
  | { readonly event: 'requesting'; readonly change: 1 | -1 }
  /** A server requested a wait. */
  | {
      readonly event: 'throttled';
      readonly host: string;
      readonly waitMs: number;
      readonly reason?: string | undefined;
    }
  | { readonly event: 'authorization'; readonly endpoint: number; readonly stale: string }
  /** The target of a blob's redirect was refused, or is unknown: the thread requests a new one. */
  | {
      readonly event: 'target-expired';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    }
  /** The thread that received `renew-target` has found a new target, or none. */
  | { readonly event: 'target-renewed'; readonly blobUrl: string; readonly target: string | undefined }
  /** The target of a blob's redirect does not work. */
  | { readonly event: 'target-failed'; readonly blobUrl: string; readonly target: string }
  /** The disk of the store is full. The thread waits at `WorkerSetup.spareRoom`. */
  | { readonly event: 'store-full' }
  | { readonly event: 'request'; readonly line: string };

/**
 * From the main thread to all workers, on the BroadcastChannel: the answers to `authorization` and
 * `target-expired`.
 */
export type MainMessage =
  | {
      readonly message: 'authorization';
      readonly endpoint: number;
      readonly stale: string;
      readonly value: string | undefined;
      readonly expiresAtMs: number;
      /** `http://…` or `https://…`, whichever works. */
      readonly origin: string;
    }
  | {
      readonly message: 'authorization-failed';
      readonly endpoint: number;
      readonly stale: string;
      readonly failure: Failure;
    }
  /** One thread is to request the target of a blob from the registry. */
  | { readonly message: 'renew-target'; readonly blobUrl: string; readonly thread: number }
  /** The target of a blob for one thread that requested it; undefined if none was found. */
  | {
      readonly message: 'target';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread: number;
    };
