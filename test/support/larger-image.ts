import type { TestContext } from 'node:test';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from './layout.js';

/** An image `larger` of one layer with `count` files of 512 KiB that zstd cannot make smaller. */
export async function largerImage(
  t: TestContext,
  count: number,
): Promise<{ layout: string; digest: string }> {
  const layout = emptyLayout(t);
  const files = Array.from({ length: count }, (_, i) => [`file${i}`, noise(i + 1, 512 * 1024)] as const);
  await writeTars(t, layout, 'larger', [tarOf(Object.fromEntries(files))]);
  return { layout, digest: readManifest(layout, 'larger').layers[0]!.digest };
}
