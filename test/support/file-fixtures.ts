import { after } from 'node:test';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from './layout.js';
import type { Lifetime } from './temporary.js';

const ends: Array<() => unknown> = [];

// Registered while the module loads: within a running test the hook would be that test's.
after(async () => {
  for (const end of ends.reverse()) await end();
});

/** The lifetime of all tests of a file, for what they share and do not change. */
export const FILE: Lifetime = { after: (end) => ends.push(end) };

const images = new Map<number, Promise<{ layout: string; digest: string }>>();

/**
 * An image `larger` of one layer with `count` files of 512 KiB that zstd cannot make smaller. All tests of a file share it, and
 * none may change it.
 */
export function largerImage(count: number): Promise<{ layout: string; digest: string }> {
  const image = images.get(count) ?? writeLarger(count);
  images.set(count, image);
  return image;
}

async function writeLarger(count: number) {
  const layout = emptyLayout(FILE);
  const files = Array.from({ length: count }, (_, i) => [`file${i}`, noise(i + 1, 512 * 1024)] as const);
  await writeTars(FILE, layout, 'larger', [tarOf(Object.fromEntries(files))]);
  return { layout, digest: readManifest(layout, 'larger').layers[0]!.digest };
}
