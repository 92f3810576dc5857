import { formatBytes, formatCount, formatRate, formatSeconds, formatShare } from '../../api/figures.js';
import { printable } from '../format-text.js';
import { type DisplayOptions, eventLine, type Renderer, type ShownEvent, summaryLine } from './renderer.js';
import { ProgressTracker, secondsLeft, stepOf, waits } from './state.js';

/** A log that is silent for longer looks like a hang. */
const LINE_EVERY_MS = 5000;

/** Prints a line at every step, and one every five seconds in between, with the image's name. */
export function createPlainRenderer(
  stream: NodeJS.WritableStream,
  display: DisplayOptions,
  now: () => number = () => performance.now(),
): Renderer {
  const tracker = new ProgressTracker(now);
  const print = (line: string): void => {
    stream.write(`${line}\n`);
  };
  const timer = setInterval(() => print(printable(stateLine(tracker, now()))), LINE_EVERY_MS);
  timer.unref();
  return {
    onEvent: (event) => {
      tracker.add(event);
      const { image } = tracker.state;
      const step = stepLine(image, event, display.cachedWhere);
      if (step !== undefined) {
        print(printable(step));
        timer.refresh();
      }
      const line = eventLine(event, display);
      if (line !== undefined) print(isOfImage(event) && image !== '' ? `${printable(image)}: ${line}` : line);
    },
    end: (result) => {
      clearInterval(timer);
      if (result !== undefined) print(printable(summaryLine(result)));
    },
  };
}

/** Whether a line needs the image's name in front of it; warnings and requests name what they are about. */
function isOfImage({ event }: ShownEvent): boolean {
  return event !== 'warning' && event !== 'debug';
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

function stateLine({ state, bytesPerSecond }: ProgressTracker, nowMs: number): string {
  const { image, totalBytes, exact } = state;
  const told = waits(state, nowMs).map(([text]) => text);
  if (!exact || totalBytes === 0) return `${image}: ${[stepOf(state), ...told].join('; ')}`;
  const receivedBytes = Math.min(state.receivedBytes, totalBytes);
  const left = secondsLeft(state, bytesPerSecond, nowMs);
  const share = formatShare(receivedBytes, totalBytes);
  const parts = [
    `${formatBytes(receivedBytes)}/${formatBytes(totalBytes)} ${share}`,
    formatRate(bytesPerSecond),
    ...(left === undefined ? [] : [`eta ${formatSeconds(left)}`]),
    stepOf(state),
  ];
  return `${image}: ${[parts.join(', '), ...told].join('; ')}`;
}
