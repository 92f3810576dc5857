export type { LayerFormat } from '../format/layer-format.js';
export type { PullEvent } from '../pull/events.js';
export type { ImageInspection, LayerInspection } from '../pull/inspection.js';
export type {
  LayerResult,
  PathResult,
  PathSelection,
  Policy,
  PullOptions,
  PullResult,
} from '../pull/options.js';
export { inspectImage, pullImage, pullPath } from '../pull/pull.js';
