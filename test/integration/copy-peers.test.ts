import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { copyImage } from '../../src/api/copy.js';
import { exportRootfs } from '../../src/api/export.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { FIXTURE_LAYOUT, FORMATS_LAYOUT, fixtureBlob, LAYER_DIGEST } from '../support/fixture-layout.js';
import { assertSameTree, listDirectory } from '../support/listing.js';
import { skipUnless, skipUnlessThere } from '../support/programs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** An image, copied into a layout under its tag. */
async function prepare(t: TestContext, tag: string, from = FIXTURE_LAYOUT) {
  const registry = await startSandbox(t, { layout: from });
  const image = `${registry.host}/any/name:${tag}`;
  const directory = temporaryDirectory(t);
  const layout = join(directory, 'layout');
  const { digest } = await copyImage(image, { destination: { kind: 'layout', path: layout, tag } });
  return { image, digest, directory, layout };
}

test('skopeo and umoci read what was copied, under the same digest', {
  skip: skipUnless('skopeo', 'umoci'),
}, async (t) => {
  const { image, digest, directory, layout } = await prepare(t, 'chunked-v1');
  const archive = join(directory, 'layout.tar');
  await copyImage(image, { destination: { kind: 'archive', path: archive, tag: 'chunked-v1' } });
  for (const [row, source] of [`oci:${layout}:chunked-v1`, `oci-archive:${archive}:chunked-v1`].entries()) {
    const copied = join(directory, `copied-${row}`);
    const options = ['--insecure-policy', 'copy', '--quiet', '--preserve-digests'];
    execFileSync('skopeo', [...options, source, `dir:${copied}`]);
    const manifest = readFileSync(join(copied, 'manifest.json'));
    assert.equal(`sha256:${createHash('sha256').update(manifest).digest('hex')}`, digest);
    assert.ok(readFileSync(join(copied, LAYER_DIGEST.slice(7))).equals(fixtureBlob(LAYER_DIGEST)));
  }
  const listed = execFileSync('umoci', ['ls', '--layout', layout], { encoding: 'utf8' });
  assert.equal(listed.trim(), 'chunked-v1');
});

test('umoci unpacks what was copied to what is exported', {
  skip: skipUnless('umoci', 'tar') || (process.getuid?.() === 0 ? false : 'devices and owners need root'),
}, async (t) => {
  const startedMs = Date.now();
  const { image, directory, layout } = await prepare(t, 'gzip', FORMATS_LAYOUT);
  const bundle = join(directory, 'bundle');
  execFileSync('umoci', ['unpack', '--image', `${layout}:gzip`, bundle], { stdio: 'pipe' });
  const store = join(directory, 'store');
  const { result } = await pull(image, { store });
  const rootfs = join(directory, 'rootfs');
  await exportRootfs({ store, diffIds: result.layers.map(({ diffId }) => diffId), directory: rootfs });
  assertSameTree(listDirectory(rootfs), listDirectory(join(bundle, 'rootfs')), startedMs);
});

test('crane pushes the layout to a registry, under the same digest', {
  skip: skipUnlessThere('crane') || skipUnless('docker-registry'),
}, async (t) => {
  const { digest, layout } = await prepare(t, 'chunked-v1');
  const registry = await startDockerRegistry();
  t.after(() => registry.stop());
  const target = `${registry.host}/pushed:one`;
  const { stdout } = await promisify(execFile)('crane', ['push', '--insecure', layout, target]);
  assert.equal(stdout.trim(), `${registry.host}/pushed@${digest}`);
});
