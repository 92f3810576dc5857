import type { CopyResult } from '../../api/copy.js';
import type { PullEvent, PullResult } from '../../api/pull.js';
import { formatBytes, formatCount, formatDuration, formatRate } from '../format-text.js';

/** What a pull or a copy did, in a line. */
export function summaryLine(result: PullResult | CopyResult): string {
  const { image, fetchedBytes, reusedBytes, resumedBytes, requests, misses, durationMs } = result;
  const fetched =
    fetchedBytes === 0
      ? 'nothing to fetch'
      : `fetched ${formatBytes(fetchedBytes)} in ${formatCount(requests, 'request')}`;
  const rate =
    durationMs > 0 && fetchedBytes > 0 ? `, ${formatRate((fetchedBytes / durationMs) * 1000)}` : '';
  const parts = [
    fetched,
    ...(reusedBytes > 0 ? [reuse(result)] : []),
    ...(resumedBytes > 0 ? [`resumed ${formatBytes(resumedBytes)}`] : []),
    ...(misses > 0 ? [formatCount(misses, 'network failure')] : []),
  ];
  return `${image}: ${parts.join(', ')}; verified in ${formatDuration(durationMs)}${rate}`;
}

function reuse(result: PullResult | CopyResult): string {
  const reused = formatBytes(result.reusedBytes);
  if (!('layers' in result)) return `${reused} were there`;
  return `reused ${reused} of ${formatBytes(result.layers.reduce((sum, layer) => sum + layer.tarBytes, 0))}`;
}

/** What the plan found, in a line; undefined when it found nothing. */
export function foundLine(event: PullEvent & { event: 'planned' }): string | undefined {
  const { resumeBytes } = event;
  return resumeBytes > 0 ? `found ${formatBytes(resumeBytes)} of a pull that was broken off` : undefined;
}

/** A line that names the manifest chosen from an index; undefined where there was no index. */
export function chosenLine(event: PullEvent & { event: 'resolved' }): string | undefined {
  const { indexDigest, digest, platform } = event;
  return indexDigest === undefined
    ? undefined
    : `chose ${digest} (${platform}) from the index ${indexDigest}`;
}
