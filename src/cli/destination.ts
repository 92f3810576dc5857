import { UsageError } from './usage-error.js';

const SCHEMES = ['tar', 'rootfs', 'layers', 'docker-archive'] as const;

export interface Destination {
  readonly scheme: (typeof SCHEMES)[number];
  readonly path: string;
}

/**
 * Where an export goes, from `scheme:path`.
 * @throws UsageError for an unknown scheme or no path
 */
export function parseDestination(text: string): Destination {
  const cut = text.indexOf(':');
  const scheme = SCHEMES.find((known) => known === text.slice(0, Math.max(0, cut)));
  const hint = `a destination is one of ${SCHEMES.map((known) => `${known}:PATH`).join(', ')}`;
  if (scheme === undefined) throw new UsageError(`"${text}" is no destination of an export`, hint);
  const path = text.slice(cut + 1);
  if (path === '') throw new UsageError(`"${text}" names no path`, hint);
  return { scheme, path };
}
