import { PullError } from '../format/error.js';
import { isTag } from '../format/reference.js';
import { isObject } from '../format/strict-json.js';
import type { HttpResponse } from './http-client.js';

/** As many tags a page as distribution and Amazon's registry give at most. */
const FIRST_QUERY = 'n=1000';

/** Google's registry gives all tags in one page, with some 250 bytes about each image. */
export const MAX_TAGS_PAGE_BYTES = 8 * 2 ** 20;

/** Ten times the tags of the largest public repositories; as strings at most 130 MB. */
const MAX_TAGS = 1_000_000;

/** Enough for MAX_TAGS in pages of 100, which is the least that registries give. */
const MAX_PAGES = 10_000;

/**
 * The tags of a repository, page after page (OCI distribution-spec, "Listing Tags"), in the
 * registry's order, each once, without names that cannot be tags. `get` requests a page by its
 * query.
 * @throws PullError `metadata-malformed` for a page that is no list of tags or too long;
 *   `answer-unexpected` for pages without end; what `get` throws
 */
export async function collectTags(
  host: string,
  repository: string,
  get: (query: string) => Promise<Pick<HttpResponse, 'headers' | 'body' | 'tooLong'>>,
): Promise<string[]> {
  const tags = new Set<string>();
  const queries = new Set<string>();
  let query: string | undefined = FIRST_QUERY;
  while (query !== undefined) {
    if (queries.has(query) || queries.size === MAX_PAGES || tags.size > MAX_TAGS) {
      throw new PullError('answer-unexpected', `${host} lists the tags of ${repository} without end`, {
        hint: `report it to the operator of ${host}; a tag whose name is known can be pulled all the same`,
      });
    }
    queries.add(query);
    const { headers, body, tooLong } = await get(query);
    if (tooLong) throw malformed(host, repository, `is larger than ${MAX_TAGS_PAGE_BYTES / 2 ** 20} MiB`);
    for (const tag of parsePage(host, repository, body)) if (isTag(tag)) tags.add(tag);
    query = nextQuery(headers['link']);
  }
  return [...tags];
}

/** Empty repositories have null for a list (distribution). */
function parsePage(host: string, repository: string, body: Buffer): string[] {
  let page: unknown;
  try {
    page = JSON.parse(body.toString('utf8'));
  } catch {
    throw malformed(host, repository, 'is no JSON');
  }
  const tags = isObject(page) ? (page['tags'] ?? []) : undefined;
  if (!Array.isArray(tags)) throw malformed(host, repository, 'has no tags in it');
  return tags.filter((tag) => typeof tag === 'string');
}

function malformed(host: string, repository: string, what: string): PullError {
  return new PullError('metadata-malformed', `the list of tags of ${repository} at ${host} ${what}`, {
    hint: 'check the address and the proxies on the way to it; --debug shows every request',
  });
}

/**
 * The query of the next page in a Link header (RFC 8288). Only the query: behind a proxy, a
 * registry may give itself another scheme, host or path.
 */
function nextQuery(header: string | string[] | undefined): string | undefined {
  for (const [, target = '', parameters = ''] of [header ?? ''].flat().join(', ').matchAll(LINK)) {
    if (!/;\s*rel\s*=\s*"?next"?\s*(;|$)/i.test(parameters)) continue;
    const query = target.split('#', 1)[0]!.replace(/^[^?]*\??/, '');
    return query === '' ? undefined : query;
  }
  return undefined;
}

const LINK = /<([^<>]*)>([^<]*?)(?=,\s*<|$)/g;
