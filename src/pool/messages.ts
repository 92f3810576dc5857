import type { Failure } from '../format/error.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import type * as check from './check-tasks.js';
import type * as tar from './export-tasks.js';
import type * as fetch from './fetch-tasks.js';
import type * as metadata from './metadata-tasks.js';
import type * as opaque from './opaque-tasks.js';
import type * as rootfs from './rootfs-tasks.js';

export type * from './check-tasks.js';
export * from './events.js';
export type * from './export-tasks.js';
export type * from './fetch-tasks.js';
export type * from './metadata-tasks.js';
export type * from './opaque-tasks.js';
export type * from './rootfs-tasks.js';
export type * from './thread-setup.js';

/**
 * The tasks of the threads: by name, the message that starts one, and its result. A failure comes
 * back as an `Outcome`. Events come from a running task at any time, even after its outcome: the
 * main thread uses them as hints and takes totals from results.
 */
interface Tasks {
  'measure-blob': [fetch.MeasureBlobTask, fetch.MeasureBlobResult];
  'fetch-span': [fetch.FetchSpanTask, fetch.FetchSpanResult];
  'write-inline': [fetch.WriteInlineTask, fetch.PackRun];
  'copy-range': [fetch.CopyRangeTask, fetch.CopyRangeResult];
  'hash-file': [fetch.HashFileTask, fetch.HashFileResult];
  'name-content': [fetch.NameContentTask, string];

  'read-metadata': [metadata.ReadMetadataTask, metadata.ReadMetadataResult];
  'look-up': [metadata.LookUpTask, metadata.LookUpResult];

  'fetch-opaque': [opaque.FetchOpaqueTask, opaque.FetchOpaqueResult];
  'list-cached': [opaque.ListCachedTask, CachedContentRows];
  'decode-blob': [opaque.DecodeBlobTask, opaque.DecodeBlobResult];

  'verify-layer': [check.VerifyLayerTask, check.VerifyLayerResult];
  'find-damage': [check.FindDamageTask, check.FindDamageResult];
  'check-layer': [check.CheckLayerTask, check.CheckLayerResult];
  'copy-runs': [check.CopyRunsTask, check.CopyRunsResult];

  'export-layer': [tar.ExportLayerTask, tar.ExportLayerResult];
  'write-archive': [tar.WriteArchiveTask, tar.WriteArchiveResult];
  flatten: [tar.FlattenTask, tar.TreeRows];
  'write-tar': [tar.WriteTarTask, tar.WriteTarResult];
  'find-cover': [tar.FindCoverTask, tar.FindCoverResult];
  'pick-tree': [tar.PickTreeTask, tar.TreeRows];
  'write-picked': [tar.WritePickedTask, tar.WritePickedResult];

  'follow-layers': [rootfs.FollowLayersTask, tar.TreeRows | null];
  'unpack-files': [rootfs.UnpackFilesTask, rootfs.UnpackFilesResult];
  'keep-files': [rootfs.KeepFilesTask, Uint8Array];
  'make-directories': [rootfs.MakeDirectoriesTask, undefined];
  'write-files': [rootfs.WriteFilesTask, undefined];
  'write-specials': [rootfs.WriteSpecialsTask, rootfs.WriteSpecialsResult];
  'finish-files': [rootfs.FinishFilesTask, undefined];
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
