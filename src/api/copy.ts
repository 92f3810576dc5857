export { type CopyOptions, type CopyResult, checkCopyDestination, copyImage } from '../copy/copy.js';
