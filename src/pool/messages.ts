import type { Failure } from '../format/error.js';
import type { ExportResults, ExportTask, PathResults, PathTask } from './export-tasks.js';
import type { FetchResults, FetchTask } from './fetch-tasks.js';
import type { StoreResults, StoreTask } from './store-tasks.js';

export * from './events.js';
export type * from './export-tasks.js';
export type * from './export-tasks.js';
export type * from './fetch-tasks.js';
export type * from './store-tasks.js';
export type * from './thread-setup.js';

/**
 * Every message between threads. Tasks go to a pool and come back as an `Outcome`; events come from a running
 * task at any time, even after its outcome: they are advice, totals come from results. An Error loses its class
 * and code on the way, so failures are data.
 */
export type Task = FetchTask | StoreTask | ExportTask | PathTask;

/** The answer to each task. */
export interface Results extends FetchResults, StoreResults, ExportResults, PathResults {}

export type Outcome<Result> =
  | { readonly ok: true; readonly value: Result }
  | { readonly ok: false; readonly failure: Failure };
