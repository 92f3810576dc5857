import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { V2S2_DIRECTORY } from './fixture-layout.js';
import { type DescriptorJson, emptyLayout, type ManifestJson, nameDocument } from './layout.js';

export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

/** The Docker schema 2 fixture in a layout that a sandbox can serve, as `v2s2`; its manifest's descriptor. */
export function v2s2Layout(t: TestContext): { layout: string; manifest: DescriptorJson } {
  const layout = emptyLayout(t);
  for (const name of readdirSync(V2S2_DIRECTORY).filter((file) => /^[0-9a-f]{64}$/.test(file)))
    copyFileSync(join(V2S2_DIRECTORY, name), join(layout, 'blobs', 'sha256', name));
  const manifest = JSON.parse(readFileSync(join(V2S2_DIRECTORY, 'manifest.json'), 'utf8')) as ManifestJson;
  return { layout, manifest: nameDocument(layout, 'v2s2', DOCKER_MANIFEST, manifest) };
}
