import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fixtureLayers } from '../support/chunked-layers.js';
import { type SampleSource, writeSampleImage } from '../support/layers/sample-image.js';
import { skipUnless } from '../support/programs.js';
import { temporaryDirectory } from '../support/temporary.js';

const MAX_OUTPUT_BYTES = 2 ** 28;

function run(program: string, args: readonly string[], input?: Buffer): Buffer {
  const options = { maxBuffer: MAX_OUTPUT_BYTES, stdio: ['pipe', 'pipe', 'pipe'] as 'pipe'[] };
  return execFileSync(program, args, input === undefined ? options : { ...options, input });
}

function tree(version: 1 | 2, fileCount = 60): SampleSource {
  return { kind: 'tree', seed: 1, fileCount, layerShares: [60, 40], version };
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

test('the same options give the same digests, in another layout too, and progress ends at the tar bytes', async (t) => {
  const dirs = [temporaryDirectory(t), temporaryDirectory(t)];
  const results = [];
  let doneBytes = 0;
  for (const layoutDir of dirs) {
    const onProgress = (bytes: number) => {
      doneBytes = bytes;
    };
    results.push(await writeSampleImage({ layoutDir, ref: 'v1', sources: [tree(1)], onProgress }));
  }
  assert.deepEqual(results[0], results[1]);
  assert.equal(doneBytes, results[0]!.tarBytes);
  const [one, two] = dirs.map((dir) => readdirSync(join(dir, 'blobs/sha256')).sort());
  assert.deepEqual(one, two);
  for (const name of one!) {
    assert.equal(sha256(readFileSync(join(dirs[0]!, 'blobs/sha256', name))), `sha256:${name}`);
  }
});

test('images in one layout share the layers that are equal', async (t) => {
  const layoutDir = temporaryDirectory(t);
  const path = join(layoutDir, 'extra');
  mkdirSync(path);
  writeFileSync(join(path, 'file'), 'content');
  const directory: SampleSource = { kind: 'directory', path };
  const one = await writeSampleImage({ layoutDir, ref: 'v1', sources: [tree(1), directory] });
  const two = await writeSampleImage({ layoutDir, ref: 'v2', sources: [tree(2), directory] });
  assert.equal(one.layers[2]!.digest, two.layers[2]!.digest);
  assert.notEqual(one.layers[0]!.digest, two.layers[0]!.digest);
  const { manifests } = JSON.parse(readFileSync(join(layoutDir, 'index.json'), 'utf8'));
  assert.deepEqual(
    manifests.map((item: { digest: string }) => item.digest),
    [one.manifestDigest, two.manifestDigest],
  );
  // Five layers, two configs, two manifests.
  assert.equal(readdirSync(join(layoutDir, 'blobs/sha256')).length, 9);
});

test('a tar that is none leaves no blob and no name behind', async (t) => {
  const layoutDir = temporaryDirectory(t);
  const path = join(layoutDir, 'broken.tar');
  writeFileSync(path, Buffer.alloc(1024, 1));
  const sources: SampleSource[] = [{ kind: 'tar', path }];
  await assert.rejects(writeSampleImage({ layoutDir, ref: 'v1', sources }), { code: 'metadata-malformed' });
  assert.deepEqual(readdirSync(join(layoutDir, 'blobs/sha256')), []);
  assert.ok(!readdirSync(layoutDir).includes('index.json'));
});

test('zstd decodes a blob to the tar that was given', { skip: skipUnless('zstd') }, async (t) => {
  const layoutDir = temporaryDirectory(t);
  const tars = (await fixtureLayers()).slice(0, 3).map((layer) => layer.tar);
  const sources = tars.map((tar, row): SampleSource => {
    const path = join(layoutDir, `${row}.tar`);
    writeFileSync(path, tar);
    return { kind: 'tar', path };
  });
  const { layers } = await writeSampleImage({ layoutDir, ref: 'v1', sources });
  for (const [row, { digest, diffId }] of layers.entries()) {
    const tar = run('zstd', ['-dc', join(layoutDir, 'blobs', digest.replace(':', '/'))]);
    assert.ok(tar.equals(tars[row]!));
    assert.equal(sha256(tar), diffId);
  }
});

test('tar finds no difference between a directory and its layer', {
  skip: skipUnless('zstd', 'tar'),
}, async (t) => {
  const layoutDir = temporaryDirectory(t);
  const path = import.meta.dirname;
  const { layers } = await writeSampleImage({ layoutDir, ref: 'v1', sources: [{ kind: 'directory', path }] });
  const tar = run('zstd', ['-dc', join(layoutDir, 'blobs', layers[0]!.digest.replace(':', '/'))]);
  run('tar', ['--compare', '-f', '-', '-C', path], tar);
  assert.ok(run('tar', ['-tf', '-'], tar).toString().includes('sample-image.test.js'));
});

test('skopeo copies both versions of a sample', { skip: skipUnless('skopeo') }, async (t) => {
  const layoutDir = temporaryDirectory(t);
  const other = temporaryDirectory(t);
  for (const version of [1, 2] as const) {
    const ref = `v${version}`;
    const { manifestDigest, layers } = await writeSampleImage({ layoutDir, ref, sources: [tree(version)] });
    const copy = (target: string) =>
      run('skopeo', ['--insecure-policy', 'copy', '-q', `oci:${layoutDir}:${ref}`, target]);
    copy(`oci:${other}/layout:${ref}`);
    copy(`dir:${other}/${ref}`);
    assert.equal(sha256(readFileSync(join(other, ref, 'manifest.json'))), manifestDigest);
    const inspected = JSON.parse(
      run('skopeo', ['inspect', '--config', `oci:${other}/layout:${ref}`]).toString(),
    );
    assert.deepEqual(
      inspected.rootfs.diff_ids,
      layers.map((layer) => layer.diffId),
    );
  }
});
