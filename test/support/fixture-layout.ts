import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The fixture layout in the source tree: tests run from dist/test/…, fixtures are not compiled. */
export const FIXTURE_LAYOUT = join(import.meta.dirname, '../../../test/fixtures/layout');

/** The largest layer of chunked-v1, as test/fixtures/layout/index.json leads to it. */
export const LAYER_DIGEST = 'sha256:fef0c9cf19e38b1d39f3cd7b0028a64afc05ad75dacba9f248e7810b32ee9a42';

/** The bytes of a blob of the fixture layout. */
export function fixtureBlob(digest: string): Buffer {
  return readFileSync(join(FIXTURE_LAYOUT, 'blobs', digest.replace(':', '/')));
}
