import { eventLine, type Talk } from './event-line.js';
import type { Renderer } from './renderer.js';

/** Shows no progress, but what the user should know of. */
export function createWarningRenderer(stream: NodeJS.WritableStream, talk: Talk): Renderer {
  return {
    onEvent: (event) => {
      if (event.event === 'warning') stream.write(`${eventLine(event, talk)}\n`);
    },
    end: () => {},
  };
}
