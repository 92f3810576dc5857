import * as copy from '../copy/copy.js';
import * as pull from '../pull/pull.js';
import type { PullOptions } from '../pull/pull-options.js';
import type { ImageInspection, PullResult } from '../pull/pull-result.js';
import * as tags from '../pull/tags.js';
import { Client, type ClientOptions } from './client.js';
import type { ExportRequest, ExportResult } from './export-image.js';

/**
 * Pulls an image into the store, each layer verified by its DiffID, as `Client.pull` does.
 *
 * ```js
 * const { digest } = await pullImage('alpine', { store: '/var/lib/zpull' });
 * ```
 * @throws PullError; what was received before stays in the store, and the next pull resumes there
 */
export const pullImage: (image: string, options: PullOptions) => Promise<PullResult> = pull.pullImage;

/**
 * What an image is, and what a pull would fetch and reuse, as `Client.inspect` does.
 *
 * ```js
 * const { fetchBytes, requests } = await inspectImage('alpine', { store: '/var/lib/zpull' });
 * ```
 * @throws PullError as `pullImage`
 */
export const inspectImage: (image: string, options: PullOptions) => Promise<ImageInspection> =
  pull.inspectImage;

/**
 * Copies an image byte for byte into an OCI layout or an archive of one, as `Client.copy` does.
 *
 * ```js
 * await copyImage('alpine', { destination: { kind: 'layout', path: './layout', tag: 'alpine' } });
 * ```
 * @throws PullError as `pullImage`; `option-malformed` for the destination
 */
export const copyImage: (image: string, options: copy.CopyOptions) => Promise<copy.CopyResult> =
  copy.copyImage;

/**
 * Lists the tags of a repository, all pages, or of a layout (`oci:DIR`), as `Client.tags` does.
 *
 * ```js
 * const { tags } = await listTags('docker.io/library/alpine');
 * ```
 * @throws PullError as `pullImage`; `reference-malformed` for a name with a tag
 */
export const listTags: (repository: string, options?: tags.TagOptions) => Promise<tags.TagListing> =
  tags.listTags;

/**
 * Exports an image to files, and pulls it first if it is not in the store, as `Client.exportImage`
 * does.
 *
 * ```js
 * await exportImage({ store: '/var/lib/zpull', image: 'alpine', to: { kind: 'rootfs', path: './root' } });
 * ```
 * @throws PullError as `pullImage`; `option-malformed` for the destination; `digest-mismatch` for a
 *   layer that is damaged in the store; `path-not-found`
 */
export async function exportImage(request: ExportRequest & ClientOptions): Promise<ExportResult> {
  const client = new Client(request);
  try {
    return await client.exportImage(request);
  } finally {
    await client.close();
  }
}
