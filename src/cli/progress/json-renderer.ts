import { jsonLine } from '../printable.js';
import type { Talk } from './event-line.js';
import type { Renderer } from './renderer.js';

/** Every event as a JSON object on a line of its own; debug lines only when asked for. */
export function createJsonRenderer(stream: NodeJS.WritableStream, { debug }: Talk): Renderer {
  return {
    onEvent: (event) => {
      if (event.event !== 'debug' || debug) stream.write(jsonLine(event));
    },
    end: () => {},
  };
}
