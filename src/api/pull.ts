export type { LayerFormat } from '../format/layer-format.js';
export type { LayerProgress, LayerState } from '../pull/layer-progress.js';
export { inspectImage, pullImage, pullPath } from '../pull/pull.js';
export type { EventOrigin, PullEvent } from '../pull/pull-events.js';
export type { Policy, PullOptions, RunOptions } from '../pull/pull-options.js';
export {
  type ImageInspection,
  type LayerInspection,
  type LayerResult,
  type PathResult,
  type PathSelection,
  type Plan,
  type PullResult,
  planOf,
} from '../pull/pull-result.js';
export { Shared } from '../pull/shared.js';
export { listTags, type TagListing, type TagOptions } from '../pull/tags.js';
