import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { startDockerRegistry } from '../support/docker-registry.js';
import { FIXTURE_LAYOUT, LAYER_DIGEST } from '../support/fixture-layout.js';
import { ask } from '../support/http.js';
import { skipUnless } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const V1_DIGEST = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** Copies an image into the layout `target` and returns its index.json; skopeo checks every digest on the way. */
async function skopeoCopy(host: string, target: string): Promise<string> {
  const options = ['copy', '--quiet', '--insecure-policy', '--src-tls-verify=false', '--preserve-digests'];
  await promisify(execFile)('skopeo', [...options, `docker://${host}`, `oci:${target}:copy`]);
  return readFileSync(join(target, 'index.json'), 'utf8');
}

test('skopeo copies an image from it, with and without tokens and redirects', {
  skip: skipUnless('skopeo'),
}, async (t) => {
  const plain = await startSandbox(t);
  const guarded = await startSandbox(t, {
    requireToken: {},
    faults: [{ match: { path: '/blobs/' }, action: { redirect: {} } }],
  });
  const directory = temporaryDirectory(t);
  assert.match(await skopeoCopy(`${plain.host}/any/name:chunked-v1`, join(directory, 'a')), /a7cbf2be864c/);
  assert.match(await skopeoCopy(`${guarded.host}/x:chunked-v2`, join(directory, 'b')), /3e4bbbeae698/);
  assert.ok(guarded.requests.some(({ path }) => path.startsWith('/signed/')));
});

test('docker-registry filled from the same layout answers with the same bytes', {
  skip: skipUnless('skopeo', 'docker-registry'),
}, async (t) => {
  const docker = await startDockerRegistry();
  t.after(() => docker.stop());
  await docker.fill(FIXTURE_LAYOUT, 'chunked-v1', 'some/name:one');
  const { origin } = await startSandbox(t);
  for (const path of [`manifests/${V1_DIGEST}`, `blobs/${LAYER_DIGEST}`]) {
    const headers = { Accept: OCI_MANIFEST, Range: 'bytes=3-9' };
    const [theirs, ours] = await Promise.all([
      ask(`${docker.origin}/v2/some/name/${path}`, { headers }),
      ask(`${origin}/v2/some/name/${path}`, { headers }),
    ]);
    assert.deepEqual([ours.status, ours.body], [theirs.status, theirs.body]);
    for (const name of ['content-range', 'content-type', 'docker-content-digest', 'etag']) {
      assert.equal(ours.headers[name], theirs.headers[name], name);
    }
  }
});
