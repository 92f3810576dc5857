export { type CopyOptions, type CopyResult, checkCopyDestination, copyImage } from '../pull/copy.js';
