import { formatCount, formatDuration } from '../format-text.js';
import { printable } from '../printable.js';
import type { ShownEvent } from './renderer.js';
import { chosenLine, foundLine } from './summary.js';

/** How much is told besides progress itself, and how. */
export interface Talk {
  readonly verbose: boolean;
  readonly debug: boolean;
  /** Where what need not be fetched is; in the store when left out. */
  readonly place?: string;
}

/** The line that an event deserves on a display of its own kind, or undefined for none. */
export function eventLine(event: ShownEvent, { verbose, debug }: Talk): string | undefined {
  const line = rawLine(event, verbose || debug, debug);
  return line === undefined ? undefined : printable(line);
}

function rawLine(event: ShownEvent, verbose: boolean, debug: boolean): string | undefined {
  switch (event.event) {
    case 'warning':
      return `warning: ${event.message}`;
    case 'resolved':
      return verbose ? chosenLine(event) : undefined;
    case 'planned':
      return foundLine(event);
    case 'layer':
      return verbose ? `layer ${event.done} of ${event.of}: ${event.diffId}` : undefined;
    case 'waiting':
      return `${event.host} asks to wait: ${formatDuration(event.waitMs)}`;
    case 'waiting-for-layers':
      return verbose ? `waiting for ${formatCount(event.layers, 'layer')} of another process` : undefined;
    case 'miss':
      return verbose ? `network failure: ${event.message}` : undefined;
    case 'debug':
      return debug ? event.line : undefined;
    default:
      return undefined;
  }
}
