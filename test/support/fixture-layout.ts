import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** In the source tree: tests run from dist/test/…, fixtures are not compiled. */
const FIXTURES = join(import.meta.dirname, '../../../test/fixtures');

export const FIXTURE_LAYOUT = join(FIXTURES, 'layout');

/** Images that older writers and stargz-snapshotter wrote. */
export const DIALECT_LAYOUT = join(FIXTURES, 'dialects');

/** The same image in one stream a layer, and an index of several. */
export const FORMATS_LAYOUT = join(FIXTURES, 'formats');

/** The same image in Docker schema 2, in skopeo's `dir:` form. */
export const V2S2_DIRECTORY = join(FIXTURES, 'v2s2');

/** The largest layer of chunked-v1, as test/fixtures/layout/index.json leads to it. */
export const LAYER_DIGEST = 'sha256:fef0c9cf19e38b1d39f3cd7b0028a64afc05ad75dacba9f248e7810b32ee9a42';

/** The manifest of chunked-v1. */
export const MANIFEST_DIGEST = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';

/** The bytes of a blob of the fixture layout. */
export function fixtureBlob(digest: string): Buffer {
  return readFileSync(join(FIXTURE_LAYOUT, 'blobs', digest.replace(':', '/')));
}
