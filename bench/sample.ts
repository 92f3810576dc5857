import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLayout, nameManifest, openBlob, putJson } from '../src/sandbox/image-writer.js';
import { type SampleFormat, writeSampleImage } from '../test/support/layers/sample-image.js';
import { writeSmallFilesTar } from './small-files-tar.js';

export type { SampleFormat };

/** An image in a layout on disk. */
export interface Sample {
  readonly layoutDir: string;
  readonly ref: string;
}

/** Made and written at a time. */
const NOISE_BYTES = 2 ** 20;

/** Four layers, ever smaller, as images have them. */
export const LAYER_SHARES = [0.5, 0.3, 0.15, 0.05];

/** The generated tree of seed 1 in one format, written once and then kept in `workDir`. */
export function treeSample(
  workDir: string,
  files: number,
  version: 1 | 2,
  format: SampleFormat = 'zstd:chunked',
): Promise<Sample> {
  const source = { kind: 'tree', seed: 1, fileCount: files, layerShares: LAYER_SHARES, version } as const;
  // The colon of a format would end the path in a name like oci:PATH:REF.
  const kind = format === 'zstd:chunked' ? '' : `-${format.replace(':', '-')}`;
  return keptSample(join(workDir, `tree-${files}${kind}`), `v${version}`, (sample) =>
    writeSampleImage({ ...sample, format, sources: [source] }),
  );
}

/** The same tree as one layer. */
export function oneLayerSample(workDir: string, files: number, format: SampleFormat): Promise<Sample> {
  const source = { kind: 'tree', seed: 1, fileCount: files, layerShares: [1], version: 1 } as const;
  return keptSample(join(workDir, `layer-${files}-${format.replace(':', '-')}`), 'v1', (sample) =>
    writeSampleImage({ ...sample, format, sources: [source] }),
  );
}

/** Layers of `files` files of 1 to 8 KB in all, which a tree has no option for. */
export function smallFilesSample(workDir: string, files: number): Promise<Sample> {
  return keptSample(join(workDir, `small-${files}`), 'v1', async (sample) => {
    const tars = smallFilesTars(join(sample.layoutDir, 'layer-'), files);
    await writeSampleImage({ ...sample, sources: tars.map((path) => ({ kind: 'tar', path })) });
    for (const path of tars) rmSync(path);
  });
}

/** Writes the tars of those layers as `prefix`0 and so on. @returns their paths */
export function smallFilesTars(prefix: string, files: number): string[] {
  return LAYER_SHARES.map((share, layer) => {
    const path = `${prefix}${layer}`;
    writeSmallFilesTar(path, Math.round(files * share), layer);
    return path;
  });
}

/** An image of one layer of so many bytes that nothing could compress, for copies: nobody decodes it. */
export function largeLayerSample(workDir: string, sizeBytes: number): Promise<Sample> {
  return keptSample(join(workDir, `layer-${sizeBytes}`), 'v1', async ({ layoutDir, ref }) => {
    createLayout(layoutDir);
    const blob = openBlob(layoutDir);
    for (let left = sizeBytes; left > 0; left -= NOISE_BYTES) {
      blob.write(randomBytes(Math.min(NOISE_BYTES, left)));
    }
    const { digest, sizeBytes: size } = blob.finish();
    const layers = [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size }];
    const config = putJson(layoutDir, 'application/vnd.oci.image.config.v1+json', {
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [digest] },
    });
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    nameManifest(
      layoutDir,
      ref,
      putJson(layoutDir, mediaType, { schemaVersion: 2, mediaType, config, layers }),
    );
  });
}

/** Writes an image with a layer for each of these tars. Nothing else uses it; `layoutDir` is absent or has another version. */
export async function tarSample(
  layoutDir: string,
  ref: string,
  tars: readonly string[],
  format: SampleFormat,
): Promise<Sample> {
  process.stderr.write(`writing sample ${ref} of ${tars.length} ${format} layers into ${layoutDir}\n`);
  await writeSampleImage({
    layoutDir,
    ref,
    format,
    sources: tars.map((path) => ({ kind: 'tar', path })),
  });
  return { layoutDir, ref };
}

/** Writes a sample unless it is there; its mark is set last. */
async function keptSample(
  layoutDir: string,
  ref: string,
  write: (sample: Sample) => Promise<unknown>,
): Promise<Sample> {
  const sample = { layoutDir, ref };
  const mark = join(layoutDir, `${ref}.whole`);
  if (existsSync(mark)) return sample;
  process.stderr.write(`writing sample ${ref} into ${layoutDir}\n`);
  mkdirSync(layoutDir, { recursive: true });
  await write(sample);
  writeFileSync(mark, '');
  return sample;
}
