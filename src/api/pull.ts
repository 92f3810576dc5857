export type { LayerFormat } from '../format/layer-format.js';
export { inspectImage, pullImage, pullPath } from '../pull/pull.js';
export type { PullEvent } from '../pull/pull-events.js';
export type { Policy, PullOptions } from '../pull/pull-options.js';
export type {
  ImageInspection,
  LayerInspection,
  LayerResult,
  PathResult,
  PathSelection,
  PullResult,
} from '../pull/pull-result.js';
export { listTags, type TagListing, type TagOptions } from '../pull/tags.js';
