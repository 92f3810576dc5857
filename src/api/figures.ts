export {
  formatBytes,
  formatCount,
  formatDuration,
  formatList,
  formatRate,
  formatSeconds,
  formatShare,
} from '../format/figures.js';
