import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CopySource } from '../../src/copy/copy-source.js';
import { openLayoutTarget } from '../../src/copy/copy-targets.js';
import { LOCK_DIRECTORY } from '../../src/copy/layout-lock.js';
import type { ManifestBytes } from '../../src/pull/oci-layout.js';
import { Stop } from '../../src/pull/pull-context.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** A copy without blobs, at the moment when its image is to get its name. */
async function copyOf(layout: string, tag: string) {
  const root = { digest: digestOf(tag), mediaType: MANIFEST, bytes: Buffer.from(tag) } as ManifestBytes;
  const source = { documents: [root], root } as unknown as CopySource;
  const target = await openLayoutTarget(layout, { tag, stop: new Stop(), onWait: () => {} });
  return {
    finish: async () => {
      await target.finish(source);
      target.close();
    },
  };
}

/** What another process does that takes the holder of the lock for dead. */
function loseLock(layout: string): void {
  rmSync(join(layout, LOCK_DIRECTORY, '0'.repeat(64)));
}

function tagsOf(layout: string): string[] {
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: { annotations: Record<string, string> }[];
  };
  return index.manifests.map(({ annotations }) => annotations['org.opencontainers.image.ref.name']!).sort();
}

/** Runs `work` when a new index.json has been written and has not got its name yet, the first time. */
async function beforeRename(t: TestContext, directory: string, work: () => Promise<void>): Promise<void> {
  const file = await open(directory);
  const handle = Object.getPrototypeOf(file) as { sync: () => Promise<void> };
  await file.close();
  const { mock } = t.mock.method(handle, 'sync', async () => {
    mock.restore();
    await work();
  });
}

test('a copy that loses its lock while it names its image names it beside the other one', async (t) => {
  const layout = join(temporaryDirectory(t), 'layout');
  const one = await copyOf(layout, 'one');
  await beforeRename(t, layout, async () => {
    loseLock(layout);
    await (await copyOf(layout, 'two')).finish();
  });
  await one.finish();
  assert.deepEqual(tagsOf(layout), ['one', 'two']);
  assert.equal(existsSync(join(layout, LOCK_DIRECTORY)), false);
  assert.deepEqual(readdirSync(layout).sort(), ['blobs', 'index.json', 'oci-layout']);
});

test('a copy that has lost its lock waits until the other one has named its image', async (t) => {
  const layout = join(temporaryDirectory(t), 'layout');
  const one = await copyOf(layout, 'one');
  loseLock(layout);
  const two = await copyOf(layout, 'two');
  let finishing: Promise<void> | undefined;
  await beforeRename(t, layout, async () => {
    finishing = one.finish();
    await Promise.race([finishing, sleep(300)]);
  });
  await two.finish();
  await finishing;
  assert.deepEqual(tagsOf(layout), ['one', 'two']);
  assert.deepEqual(readdirSync(layout).sort(), ['blobs', 'index.json', 'oci-layout']);
});

test('of three copies that lose their lock one after the other each names its image', async (t) => {
  const layout = join(temporaryDirectory(t), 'layout');
  const one = await copyOf(layout, 'one');
  loseLock(layout);
  const two = await copyOf(layout, 'two');
  loseLock(layout);
  const three = await copyOf(layout, 'three');
  await Promise.all([one, two, three].map((copy) => copy.finish()));
  assert.deepEqual(tagsOf(layout), ['one', 'three', 'two']);
});
