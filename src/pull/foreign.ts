import { fileURLToPath } from 'node:url';
import { damagedHint } from '../files/layout-error.js';
import { type ErrorCode, PullError } from '../format/error.js';
import type { Descriptor } from '../format/manifest.js';
import { listSome, shorten } from '../format/text.js';
import type { BlobSource } from '../pool/messages.js';
import { foreignHost } from '../registry/endpoint-choice.js';
import { isUsableHost } from '../registry/urls.js';
import type { PullContext } from './context.js';
import type { PullEvent } from './events.js';

/** Where a foreign layer failed, another of its places may do. */
const TRY_NEXT_PLACE: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'redirect-refused',
  'answer-unexpected',
  'digest-mismatch',
]);

/** The addresses of a foreign layer that can be asked. @throws PullError `unsupported` when there is none */
export function foreignUrlsOf({ digest, urls = [] }: Descriptor): string[] {
  const usable = urls.filter(
    (url) => /^https?:\/\//i.test(url) && URL.canParse(url) && isUsableHost(new URL(url)),
  );
  if (usable.length > 0) return usable;
  throw new PullError('unsupported', `layer ${digest} lies at no http or https address`, { layer: digest });
}

/** A host that can exist has no more. */
const MAX_SHOWN_HOST_LENGTH = 259;

/** The addresses of a foreign layer without paths and queries, which can be secrets. */
export function hostsOf({ urls = [] }: Pick<Descriptor, 'urls'>): string {
  const hosts = urls.map((url) => (URL.canParse(url) ? new URL(url).host : 'no valid address'));
  return listSome([...new Set(hosts)].map((host) => shorten(host, MAX_SHOWN_HOST_LENGTH)));
}

/** The hint where all bytes of a blob came and are another one: what to do depends on the place that it was read from. */
export function wrongBytesHint({ url, anonymous }: Pick<BlobSource, 'anonymous' | 'url'>): string {
  const { protocol, host } = new URL(url);
  if (protocol === 'file:') return damagedHint(fileURLToPath(url));
  if (anonymous === true)
    return `${host} has other bytes for this layer than the image names: ask whoever published the image`;
  return 'what the registry or a proxy before it holds is damaged: ask whoever runs it, or take the image from another one';
}

/**
 * What `from` resolves to at the first of these places that serves. `again`: a place before this one has failed.
 * @throws what `from` throws at the last place, or where another place would not do
 */
export async function fromAnyUrl<T>(
  urls: readonly string[],
  emit: (event: PullEvent) => void,
  from: (url: string, again: boolean) => Promise<T>,
): Promise<T> {
  let last: unknown;
  for (const url of urls) {
    if (last instanceof PullError) {
      emit({ event: 'warning', message: `${last.message}; trying another place` });
    }
    try {
      return await from(url, last !== undefined);
    } catch (error) {
      if (!(error instanceof PullError && TRY_NEXT_PLACE.has(error.code))) throw error;
      last = error;
    }
  }
  throw last;
}

/** Whether the first place that is asked for a blob, its endpoint or its host, is known to give no ranges. */
export function ignoresRanges(
  { endpoints }: PullContext,
  { anonymous, url }: Pick<BlobSource, 'anonymous' | 'url'>,
): boolean {
  return endpoints.has(anonymous === true ? foreignHost(url) : 0, 'ranges-ignored');
}
