import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type CopyOptions, copyImage } from '../../src/api/copy.js';
import type { PullError } from '../../src/api/errors.js';
import type { EventOrigin, PullEvent } from '../../src/api/pull.js';
import type { FaultAction, FaultRule } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { addLayer, emptyLayout, nameImage, noise, readBlob, tarOf } from './layout.js';
import { temporaryDirectory } from './temporary.js';

/** An image `blobs` of layers that are plain tars, and so are fetched as they are. */
export interface BlobsImage {
  readonly layout: string;
  readonly digests: readonly string[];
  readonly sizes: readonly number[];
}

/** An image with a layer for each file of so many bytes; a layer is 2048 bytes longer, or a little more. */
export async function blobsImage(t: TestContext, ...fileBytes: readonly number[]): Promise<BlobsImage> {
  const layout = emptyLayout(t);
  const tars = fileBytes.map((bytes, i) => tarOf({ [`file${i}`]: noise(i + 1, bytes) }));
  const layers = await Promise.all(tars.map((tar) => addLayer(layout, tar, '')));
  const diffIds = tars.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`);
  nameImage(layout, 'blobs', layers, diffIds);
  return { layout, digests: layers.map(({ digest }) => digest), sizes: layers.map(({ size }) => size) };
}

/** One rule for each of these answers to the requests for a path, in turn; undefined is the right answer, as are all that follow. */
export function inTurn(path: string, ...actions: readonly (FaultAction | undefined)[]): FaultRule[] {
  return actions.flatMap((action, i) => (action ? [{ match: { path, nth: i + 1 }, action }] : []));
}

/** The outcome of a copy: its error or undefined, its misses and log lines. */
export interface Copied {
  readonly error: PullError | undefined;
  readonly misses: readonly string[];
  readonly lines: readonly string[];
}

/** Copies the image `blobs` with one thread, and asserts that the blobs are the same bytes. */
export async function copyBlobs(
  t: TestContext,
  { layout, digests }: BlobsImage,
  host: string,
  options: Partial<CopyOptions> = {},
): Promise<Copied> {
  const path = join(temporaryDirectory(t), 'copy');
  const misses: string[] = [];
  const lines: string[] = [];
  const onEvent = (event: PullEvent & EventOrigin) => {
    if (event.event === 'miss') misses.push(event.message);
    if (event.event === 'debug') lines.push(event.line);
    options.onEvent?.(event);
  };
  const asked = { workers: 1, debug: true, ...options, destination: { kind: 'layout', path } as const };
  const error = await copyImage(`${host}/x:blobs`, { ...asked, onEvent }).then(
    () => undefined,
    (reason: PullError) => reason,
  );
  if (error === undefined) {
    for (const digest of digests)
      if (!readBlob(path, digest).equals(readBlob(layout, digest))) throw new Error(`${digest} differs`);
  }
  return { error, misses, lines };
}

/** The requests for a blob, at its registry and where that redirects to. */
export function asksFor({ requests }: SandboxRegistry, digest: string): RequestRecord[] {
  return requests.filter(({ path }) => path.endsWith(digest));
}
