/** zpull's public API. */
export * from './api/copy.js';
export * from './api/errors.js';
export * from './api/export.js';
export * from './api/measure.js';
export * from './api/pull.js';
export * from './api/stages.js';
export * from './api/store.js';
