import { PullError } from '../format/error.js';

/** How a layout is served. */
export interface ServeOptions {
  /** 0, the default, chooses a free port. */
  readonly port?: number;
  /** The address to listen on; default 127.0.0.1. */
  readonly host?: string;
  /** Delay before each answer, in milliseconds. */
  readonly latencyMs?: number;
  /** Body bytes a second on each connection. */
  readonly ratePerConnectionBytes?: number;
  /** Body bytes a second over all connections together. */
  readonly rateBytes?: number;
}

/** A running registry. */
export interface ServedLayout extends AsyncDisposable {
  /** `127.0.0.1:PORT`, the registry of references. */
  readonly host: string;
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string;
  /** Closes all connections and stops listening. */
  close(): Promise<void>;
}

/**
 * Serves an OCI layout, a directory, as a read-only registry under any repository name; resolves
 * when it listens.
 *
 * ```js
 * const { host, close } = await serve('./layout');
 * await client.pull(`${host}/any/name:tag`);
 * await close();
 * ```
 * @throws PullError `option-malformed` if there is no layout or it cannot listen on the address;
 *   `metadata-malformed` for a malformed index.json
 */
export async function serve(layout: string, options: ServeOptions = {}): Promise<ServedLayout> {
  if (typeof layout !== 'string' || layout === '') {
    throw new PullError('option-malformed', 'layout must be the path of a directory');
  }
  const { startRegistry } = await import('../sandbox/registry-server.js');
  const { host, origin, close } = await startRegistry({ ...options, layout });
  return { host, origin, close, [Symbol.asyncDispose]: close };
}
