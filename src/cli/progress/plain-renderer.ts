import { formatBytes, formatCount, formatRate, formatSeconds, formatShare, printable } from '../format-text.js';
import { eventLine, type Talk, summaryLine } from './event-line.js';
import { advance, INITIAL_STATE, type ProgressState, RateMeter } from './progress-state.js';
import type { Renderer, ShownEvent } from './create-renderer.js';

/** A log that says nothing for longer looks like a hang. */
const LINE_EVERY_MS = 5000;

/** A line at every step, and one every five seconds in between, whatever the network does. */
export function createPlainRenderer(
  stream: NodeJS.WritableStream,
  talk: Talk,
  now: () => number = () => performance.now(),
): Renderer {
  let state = INITIAL_STATE;
  let meter = new RateMeter(0, now());
  const say = (line: string): void => {
    stream.write(`${line}\n`);
  };
  const timer = setInterval(() => say(printable(stateLine(state, meter.bytesPerSecond))), LINE_EVERY_MS);
  timer.unref();
  return {
    onEvent: (event) => {
      state = advance(state, event);
      if (event.event === 'resolving' || event.event === 'exporting') meter = new RateMeter(0, now());
      if (event.event === 'progress' || event.event === 'written') meter.update(state.receivedBytes, now());
      const step = stepLine(state.image, event, talk.place);
      if (step !== undefined) {
        say(printable(step));
        timer.refresh();
      }
      const line = eventLine(event, talk);
      if (line !== undefined) say(line);
    },
    end: (result) => {
      clearInterval(timer);
      if (result !== undefined) say(printable(summaryLine(result)));
    },
  };
}

function stepLine(image: string, event: ShownEvent, place = 'in the store'): string | undefined {
  switch (event.event) {
    case 'resolving':
      return `${image}: resolving`;
    case 'resolved': {
      const { digest, platform, layers, totalBytes } = event;
      return `${image}: ${digest} ${platform}, ${formatCount(layers, 'layer')}, ${formatBytes(totalBytes)}`;
    }
    case 'planned': {
      const { totalBytes, reuseBytes, requests } = event;
      const reuse = reuseBytes > 0 ? `, ${formatBytes(reuseBytes)} are ${place}` : '';
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
