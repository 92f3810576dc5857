import { ftruncateSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { requireSpace } from '../files/disk-space.js';
import { OpenDirectory } from '../files/open-directory.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';
import { type Digest, digestHex, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { parseConfig } from '../format/image-config.js';
import { parseLocalImage } from '../format/local-image.js';
import { parseManifest } from '../format/manifest.js';
import { parseReference, withoutTransport } from '../format/reference.js';
import { type ArchiveMember, archiveParts, planArchive } from '../format/tar-writer.js';
import type { OpenFile } from '../pool/messages.js';
import { getBlob } from '../store/blob-cache.js';
import { openStore, type StorePaths } from '../store/paths.js';
import { requireFile } from './destination-checks.js';
import { type ExportOptions, type ExportRun, withExport } from './export-run.js';
import { damageOf, distinct, type StoredLayer, totalTarBytes } from './exported-layers.js';
import { UnfinishedFile } from './unfinished.js';

/**
 * Writes an archive for `docker load` (moby/image-spec v1.2: manifest.json, the config under its
 * digest, layers as plain tars). The image ID is the digest of the config. The file gets its name
 * once all layers are proven. On the standard output, the documents that list the layers follow
 * them, so that an archive with a damaged layer is incomplete to every reader.
 * @returns false when the reader of the standard output closed it before the end
 * @throws PullError `digest-mismatch` when a layer in the store is damaged; `store-broken` when a
 *   layer, the manifest or the config is missing; `option-malformed` when the path cannot be a
 *   file; as `storageError` for the file
 */
export async function exportDockerArchive(
  options: Omit<ExportOptions, 'diffIds'> & {
    /** Default: the standard output. */
    readonly file?: string;
    /** Digest of the image's manifest. */
    readonly digest: string;
    /** Reference of the image, whose name and tag go into the archive, unless it has a digest. */
    readonly reference: string;
  },
): Promise<boolean> {
  const file = options.file === undefined ? undefined : resolve(options.file);
  if (file !== undefined) requireFile(file);
  const manifestDigest = parseDigest(options.digest, 'the digest');
  const { digest, bytes, mediaType } = readConfig(openStore(options.store), manifestDigest);
  const { diffIds } = parseConfig(bytes, mediaType);
  const write = (to: (run: ExportRun, documents: readonly Document[]) => Promise<boolean>) =>
    withExport({ ...options, diffIds }, (run) => {
      run.begin(`docker-archive:${options.file ?? '-'}`, totalTarBytes(distinct(run.layers)));
      const config = { name: `${digestHex(digest)}.json`, bytes };
      const named = { Config: config.name, RepoTags: repoTags(options.reference) };
      const manifest = [{ ...named, Layers: run.layers.map(nameOf) }];
      return to(run, [{ name: 'manifest.json', bytes: Buffer.from(JSON.stringify(manifest)) }, config]);
    });
  if (file === undefined) return write(writeStream);
  const directory = wrapFsError(`open ${dirname(file)}`, () => OpenDirectory.hold(dirname(file)));
  try {
    const unfinished = await UnfinishedFile.create(directory, basename(file));
    try {
      return await write(async (run, documents) => {
        await writeFile(run, unfinished, documents);
        await unfinished.publish();
        return true;
      });
    } finally {
      await unfinished.discard();
    }
  } finally {
    directory.close();
  }
}

/** A JSON file of the archive. */
interface Document {
  readonly name: string;
  readonly bytes: Buffer;
}

/** Writes the archive to the standard output. Returns false when its reader closed it early. */
async function writeStream({ pool, layers }: ExportRun, documents: readonly Document[]): Promise<boolean> {
  const each = distinct(layers);
  const headerOf = (member: ArchiveMember) => planArchive([member]).members[0]!.header;
  const { closed, damaged } = await pool.run({
    task: 'write-archive',
    layers: each.map((layer) => ({
      ...layer,
      header: headerOf({ name: nameOf(layer), sizeBytes: layer.tarBytes }),
    })),
    documents: documents.map(({ name, bytes }) => ({
      header: headerOf({ name, sizeBytes: bytes.length }),
      bytes,
    })),
  });
  if (damaged !== undefined) throw await damageOf(pool, each[damaged]!);
  return !closed;
}

/** Writes the archive to a file, layers in parallel. */
async function writeFile(
  { pool, layers }: ExportRun,
  { fd, path }: OpenFile,
  documents: readonly Document[],
): Promise<void> {
  const each = distinct(layers);
  const plan = planArchive([
    ...documents.map(({ name, bytes }) => ({ name, sizeBytes: bytes.length })),
    ...each.map((layer) => ({ name: nameOf(layer), sizeBytes: layer.tarBytes })),
  ]);
  // Before the file gets its length, as some file systems have no holes.
  await requireSpace(dirname(path), plan.sizeBytes);
  wrapFsError(`write ${path}`, () => ftruncateSync(fd, plan.sizeBytes));
  const contents = documents.map(({ bytes }) => bytes);
  for (const [bytes, offset] of archiveParts(plan, contents)) writeFully(fd, path, bytes, offset);
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

/**
 * Returns the image's name with its tag, by default `latest`; nothing for a digest, same as docker.
 * The name of an image in a layout is the layout's tag, if that is an image name.
 */
function repoTags(text: string): string[] {
  const local = parseLocalImage(text, (path) => resolve(path));
  if (local !== undefined) {
    const { tag = '', digest } = local;
    return digest === undefined && /[/:]/.test(tag) ? repoTags(tag) : [];
  }
  const { digest } = parseReference(text);
  if (digest !== undefined) return [];
  const name = withoutTransport(text);
  return [name.includes(':', name.lastIndexOf('/') + 1) ? name : `${name}:latest`];
}

function readConfig(
  paths: StorePaths,
  manifestDigest: Digest,
): { digest: Digest; bytes: Buffer; mediaType: string } {
  const manifest = parseManifest(cachedBlob(paths, manifestDigest, 'manifest'));
  if (manifest.kind !== 'manifest') throw new PullError('internal', `${manifestDigest} is an index`);
  const { digest, mediaType } = manifest.config;
  return { digest, bytes: cachedBlob(paths, digest, 'config'), mediaType };
}

function cachedBlob(paths: StorePaths, digest: Digest, what: string): Buffer {
  const bytes = getBlob(paths, digest);
  if (bytes !== undefined) return bytes;
  throw new PullError('store-broken', `the ${what} ${digest} is not in the store ${paths.root} any more`, {
    hint: 'pull the image again',
  });
}
