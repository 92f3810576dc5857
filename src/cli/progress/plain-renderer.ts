import {
  formatBytes,
  formatCount,
  formatRate,
  formatSeconds,
  formatShare,
  printable,
} from '../format-text.js';
import { type DisplayOptions, eventLine, summaryLine } from './event-text.js';
import type { Renderer, ShownEvent } from './renderer.js';
import { advance, INITIAL_STATE, type ProgressState, RateMeter } from './state.js';

/** A log that is silent for longer looks like a hang. */
const LINE_EVERY_MS = 5000;

/** Prints a line at every step, and one every five seconds in between. */
export function createPlainRenderer(
  stream: NodeJS.WritableStream,
  display: DisplayOptions,
  now: () => number = () => performance.now(),
): Renderer {
  let state = INITIAL_STATE;
  let meter = new RateMeter(0, now());
  const print = (line: string): void => {
    stream.write(`${line}\n`);
  };
  const timer = setInterval(() => print(printable(stateLine(state, meter.bytesPerSecond))), LINE_EVERY_MS);
  timer.unref();
  return {
    onEvent: (event) => {
      state = advance(state, event);
      if (event.event === 'resolving' || event.event === 'exporting') meter = new RateMeter(0, now());
      if (event.event === 'progress' || event.event === 'written') meter.update(state.receivedBytes, now());
      const step = stepLine(state.image, event, display.cachedWhere);
      if (step !== undefined) {
        print(printable(step));
        timer.refresh();
      }
      const line = eventLine(event, display);
      if (line !== undefined) print(line);
    },
    end: (result) => {
      clearInterval(timer);
      if (result !== undefined) print(printable(summaryLine(result)));
    },
  };
}

function stepLine(image: string, event: ShownEvent, cachedWhere = 'in the store'): string | undefined {
  switch (event.event) {
    case 'resolving':
      return `${image}: resolving`;
    case 'resolved': {
      const { digest, platform, layers, totalBytes } = event;
      return `${image}: ${digest} ${platform}, ${formatCount(layers, 'layer')}, ${formatBytes(totalBytes)}`;
    }
    case 'planned': {
      const { totalBytes, reuseBytes, requests } = event;
      const reuse = reuseBytes > 0 ? `, ${formatBytes(reuseBytes)} are ${cachedWhere}` : '';
      return `${image}: fetching ${formatBytes(totalBytes)} in ${formatCount(requests, 'request')}${reuse}`;
    }
    case 'exporting':
      return `writing ${event.destination}: ${formatBytes(event.totalBytes)}`;
    default:
      return undefined;
  }
}

function stateLine(state: ProgressState, bytesPerSecond: number): string {
  const { image, message, totalBytes } = state;
  if (totalBytes === 0) return `${image}: ${message}`;
  const receivedBytes = Math.min(state.receivedBytes, totalBytes);
  const left = totalBytes - receivedBytes;
  const eta = formatSeconds(bytesPerSecond > 0 ? left / bytesPerSecond : undefined);
  const size = `${formatBytes(receivedBytes)}/${formatBytes(totalBytes)}`;
  const share = formatShare(receivedBytes, totalBytes);
  return `${image}: ${size} ${share}, ${formatRate(bytesPerSecond)}, eta ${eta}, ${message}`;
}
