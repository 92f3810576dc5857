import { listTags, type TagListing } from '../../api/pull.js';
import { UsageError } from '../failure.js';
import { jsonLine, printable } from '../format-text.js';
import { matchesGlob } from '../glob.js';
import type { OptionValues } from '../options.js';
import { createRenderer } from '../progress/renderer.js';
import { pullOptionsOf, readPassword } from '../pull-options.js';
import { untilSignal } from '../signals.js';

/** `zpull tags NAME[:PATTERN]`: prints the tags of a repository or a layout, a line each. */
export async function runTags([name = '']: readonly string[], given: OptionValues): Promise<number> {
  const { repository, pattern } = splitPattern(name);
  const options = await readPassword(given);
  const listing = await list(repository, options);
  const tags = listing.tags.filter((tag) => pattern === undefined || matchesGlob(pattern, tag));
  if (options.json === true) process.stdout.write(jsonLine({ ...listing, tags }));
  else for (const tag of tags) process.stdout.write(`${printable(tag)}\n`);
  if (tags.length === 0 && options.quiet !== true) {
    const what = pattern === undefined || listing.tags.length === 0 ? 'has no tags' : `has no tag ${pattern}`;
    process.stderr.write(`zpull: ${printable(`${listing.repository} ${what}`)}\n`);
  }
  return 0;
}

async function list(repository: string, options: OptionValues): Promise<TagListing> {
  const renderer = await createRenderer(options);
  try {
    return await untilSignal((signal) =>
      listTags(repository, { ...pullOptionsOf(options, process.env), signal, onEvent: renderer.onEvent }),
    );
  } finally {
    renderer.end();
  }
}

/**
 * Splits `alpine:3.*` at the colon behind the repository or the path of a layout.
 * @throws UsageError for a name with a digest
 */
function splitPattern(name: string): { repository: string; pattern: string | undefined } {
  if (name.includes('@')) {
    throw new UsageError(
      `"${name}" names one image, not a repository`,
      'leave out what follows the name of the repository; zpull inspect IMAGE tells about one image',
    );
  }
  const [, local] = /^(oci|oci-archive):/.exec(name) ?? [];
  const from = local === undefined ? name.lastIndexOf('/') + 1 : local.length + 1;
  const colon = name.indexOf(':', from);
  if (colon < 0) return { repository: name, pattern: undefined };
  return { repository: name.slice(0, colon), pattern: name.slice(colon + 1) || undefined };
}
