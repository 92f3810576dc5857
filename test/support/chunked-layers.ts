import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decompress } from '@mongodb-js/zstd';
import { FIXTURE_LAYOUT, fixtureBlob } from './fixture-layout.js';

const PREFIX = 'io.github.containers.zstd-chunked.';

/** A zstd:chunked blob with everything in it decoded, read without any of the program's own code. */
export interface DecodedLayer {
  readonly tar: Buffer;
  readonly toc: string;
  readonly tarSplit: string;
}

/** Decodes a layer by its annotations. */
export async function decodeLayer(
  blob: Buffer,
  annotations: Readonly<Record<string, string>>,
): Promise<DecodedLayer> {
  const part = async (key: string) => {
    const [offset = 0, length = 0] = annotations[PREFIX + key]!.split(':').map(Number);
    return (await decompress(blob.subarray(offset, offset + length))).toString();
  };
  return {
    tar: await decompress(blob),
    toc: await part('manifest-position'),
    tarSplit: await part('tarsplit-position'),
  };
}

/** Every layer of both fixture images, decoded. */
export async function fixtureLayers(): Promise<(DecodedLayer & { readonly name: string })[]> {
  const index = JSON.parse(readFileSync(join(FIXTURE_LAYOUT, 'index.json'), 'utf8'));
  const layers = [];
  for (const { digest, annotations } of index.manifests) {
    const manifest = JSON.parse(fixtureBlob(digest).toString());
    for (const [row, layer] of manifest.layers.entries()) {
      const name = `layer ${row} of ${annotations['org.opencontainers.image.ref.name']}`;
      layers.push({ name, ...(await decodeLayer(fixtureBlob(layer.digest), layer.annotations)) });
    }
  }
  return layers;
}

/** The bytes in pieces of one size, to see that nothing depends on where they are cut. */
export function cutUp(bytes: Buffer, pieceBytes: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(bytes.subarray(at, at + pieceBytes));
  return pieces;
}
