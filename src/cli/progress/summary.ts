import type { PullEvent, PullResult } from '../../index.js';
import { formatBytes, formatCount, formatDuration, formatRate } from '../format-text.js';

/** What a pull did, in a line. */
export function summaryLine(result: PullResult): string {
  const { image, fetchedBytes, reusedBytes, resumedBytes, requests, misses, durationMs, layers } = result;
  const tarBytes = layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
  const fetched =
    fetchedBytes === 0
      ? 'nothing to fetch'
      : `fetched ${formatBytes(fetchedBytes)} in ${formatCount(requests, 'request')}`;
  const rate =
    durationMs > 0 && fetchedBytes > 0 ? `, ${formatRate((fetchedBytes / durationMs) * 1000)}` : '';
  const parts = [
    fetched,
    ...(reusedBytes > 0 ? [`reused ${formatBytes(reusedBytes)} of ${formatBytes(tarBytes)}`] : []),
    ...(resumedBytes > 0 ? [`resumed ${formatBytes(resumedBytes)}`] : []),
    ...(misses > 0 ? [formatCount(misses, 'network failure')] : []),
  ];
  return `${image}: ${parts.join(', ')}; verified in ${formatDuration(durationMs)}${rate}`;
}

/** What the plan found, in a line; undefined when it found nothing. */
export function foundLine(event: PullEvent & { event: 'planned' }): string | undefined {
  const { resumeBytes } = event;
  return resumeBytes > 0 ? `found ${formatBytes(resumeBytes)} of a pull that was broken off` : undefined;
}
