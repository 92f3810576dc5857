import { ftruncateSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { type Digest, digestHex, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { parseConfig } from '../format/image-config.js';
import { parseManifest } from '../format/manifest.js';
import { parseReference } from '../format/reference.js';
import { planArchive } from '../format/tar-archive.js';
import type { OpenFile } from '../pool/messages.js';
import { writeFrame } from '../store/archive-frame.js';
import { getBlob } from '../store/blob-cache.js';
import { requireFile } from '../store/destination.js';
import { requireSpace } from '../store/disk-space.js';
import { HeldDirectory } from '../store/held-directory.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { onDisk } from '../store/storage-error.js';
import { damageOf, distinct, type ExportRun, type StoredLayer, sumOf, withExport } from './export-run.js';
import type { ExportOptions } from './options.js';
import { UnfinishedFile } from './unfinished.js';

/**
 * Writes the archive that `docker load` takes (moby/image-spec v1.2: manifest.json, the config under its digest, layers as plain
 * tars). The image ID is the digest of the config, as it is wherever the image comes from. The file appears under its
 * name only once all layers are proven.
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one, the manifest or the
 *   config is gone; `option-malformed` when the file is none, as `storageError` for the file
 */
export async function exportDockerArchive(
  options: Omit<ExportOptions, 'diffIds'> & {
    readonly file: string;
    /** The image's manifest, as the pull resolved it. */
    readonly digest: string;
    /** What the image was called: its tag becomes the archive's, a digest none. */
    readonly reference: string;
  },
): Promise<void> {
  const file = resolve(options.file);
  requireFile(file);
  const manifestDigest = parseDigest(options.digest, 'the digest');
  const { digest, bytes, mediaType } = readConfig(openStore(options.store), manifestDigest);
  const { diffIds } = parseConfig(bytes, mediaType);
  const directory = onDisk(`open ${dirname(file)}`, () => HeldDirectory.hold(dirname(file)));
  try {
    const unfinished = await UnfinishedFile.create(directory, basename(file));
    try {
      await withExport({ ...options, diffIds }, async (run) => {
        run.begin(`docker-archive:${options.file}`, sumOf(distinct(run.layers)));
        const config = { name: `${digestHex(digest)}.json`, bytes };
        await writeArchive(run, unfinished, config, repoTags(options.reference));
        await unfinished.publish();
      });
    } finally {
      await unfinished.discard();
    }
  } finally {
    directory.close();
  }
}

/** A small file of the archive. */
interface Document {
  readonly name: string;
  readonly bytes: Buffer;
}

async function writeArchive(
  { pool, layers }: ExportRun,
  { fd, path }: OpenFile,
  config: Document,
  tags: readonly string[],
): Promise<void> {
  const each = distinct(layers);
  const manifest = [{ Config: config.name, RepoTags: tags, Layers: layers.map(nameOf) }];
  const documents = [{ name: 'manifest.json', bytes: Buffer.from(JSON.stringify(manifest)) }, config];
  const plan = planArchive([
    ...documents.map(({ name, bytes }) => ({ name, sizeBytes: bytes.length })),
    ...each.map((layer) => ({ name: nameOf(layer), sizeBytes: layer.tarBytes })),
  ]);
  // Before the file has its length: not every file system can leave holes.
  await requireSpace(dirname(path), plan.sizeBytes);
  onDisk(`write ${path}`, () => ftruncateSync(fd, plan.sizeBytes));
  writeFrame(
    fd,
    path,
    plan,
    documents.map(({ bytes }) => bytes),
  );
  await Promise.all(
    each.map(async (layer, row) => {
      const { diffId, extents } = layer;
      const position = plan.members[documents.length + row]!.contentStart;
      const result = await pool.run({ task: 'export-layer', extents, file: { fd, path }, position });
      if (result.digest !== diffId) throw await damageOf(pool, layer);
    }),
  );
}

function nameOf({ diffId }: StoredLayer): string {
  return `${digestHex(diffId)}.tar`;
}

/** The name with its tag, which is `latest` when none is given; none for a digest, as docker has it. */
function repoTags(text: string): string[] {
  const { digest } = parseReference(text);
  if (digest !== undefined) return [];
  return [text.includes(':', text.lastIndexOf('/') + 1) ? text : `${text}:latest`];
}

function readConfig(
  paths: StorePaths,
  manifestDigest: Digest,
): { digest: Digest; bytes: Buffer; mediaType: string } {
  const manifest = parseManifest(keptBlob(paths, manifestDigest, 'manifest'));
  if (manifest.kind !== 'manifest') throw new PullError('internal', `${manifestDigest} is an index`);
  const { digest, mediaType } = manifest.config;
  return { digest, bytes: keptBlob(paths, digest, 'config'), mediaType };
}

function keptBlob(paths: StorePaths, digest: Digest, what: string): Buffer {
  const bytes = getBlob(paths, digest);
  if (bytes !== undefined) return bytes;
  throw new PullError('store-broken', `the ${what} ${digest} is not in the store ${paths.root} any more`, {
    hint: 'pull the image again',
  });
}
