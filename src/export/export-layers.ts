import { existsSync, ftruncateSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { requireSpace } from '../files/disk-space.js';
import { makeOpenDirectory, type OpenDirectory } from '../files/open-directory.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';
import { type Digest, digestHex, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { parseConfig } from '../format/image-config.js';
import { parseManifest } from '../format/manifest.js';
import { parseLocalImage, parseReference, withoutTransport } from '../format/reference.js';
import { type ArchiveMember, archiveParts, planArchive } from '../format/tar-writer.js';
import type { OpenFile } from '../pool/messages.js';
import { getBlob } from '../store/image-record.js';
import { openStore, type StorePaths } from '../store/paths.js';
import {
  damageOf,
  distinct,
  type ExportOptions,
  type ExportRun,
  type StoredLayer,
  totalTarBytes,
  withExport,
} from './export-run.js';
import { requireDirectory, requireFile } from './export-schemes.js';
import { UnfinishedFile, withNewFile } from './output-files.js';

/** Layers written at a time: more than there are threads, so that no thread waits. */
const MAX_PARALLEL = 8;

/**
 * Writes each layer's tar into a directory, named HEX.tar after its DiffID. A file gets its name
 * once its bytes hash to the DiffID.
 * @returns the path of each layer's file, in the order of `diffIds`
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one
 *   is missing, `option-malformed` when the path is not a directory
 */
export async function exportLayers(
  options: ExportOptions & { readonly directory: string },
): Promise<string[]> {
  const directory = resolve(options.directory);
  requireDirectory(directory);
  const files: UnfinishedFile[] = [];
  let opened: OpenDirectory | undefined;
  try {
    return await withExport(options, async (run) => {
      const { layers, begin } = run;
      const parent = wrapFsError(`make the directory ${directory}`, () => makeOpenDirectory(directory));
      opened = parent;
      const each = distinct(layers);
      begin(`layers:${options.directory}`, totalTarBytes(each));
      // An existing file makes room for its replacement.
      const missing = each.filter((layer) => !existsSync(tarPath(directory, layer)));
      await requireSpace(directory, totalTarBytes(missing));
      await forEachParallel(each, async (layer) => {
        const file = await UnfinishedFile.create(parent, tarName(layer));
        files.push(file);
        await writeLayer(run, layer, file, 0);
        await file.publish();
      });
      return layers.map((layer) => tarPath(directory, layer));
    });
  } finally {
    // By now no thread writes to them.
    for (const file of files) await file.discard();
    opened?.close();
  }
}

/** Writes a layer's tar at a position of a file. @throws PullError `digest-mismatch` */
async function writeLayer(
  { pool, stages }: ExportRun,
  layer: StoredLayer,
  { fd, path }: OpenFile,
  position: number,
): Promise<void> {
  const { extents, diffId } = layer;
  const { digest } = await pool.run({ task: 'export-layer', extents, file: { fd, path }, position });
  if (digest !== diffId) throw await damageOf(pool, layer);
  stages.clock.addBytes('prove', layer.tarBytes);
}

/**
 * Does `work` for all items, a few at a time, as each has a file open. Throws the first error at
 * the end.
 */
async function forEachParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const failures: unknown[] = [];
  const worker = async () => {
    for (const item of queue) await work(item).catch((error: unknown) => failures.push(error));
  };
  await Promise.all(Array.from({ length: MAX_PARALLEL }, worker));
  if (failures.length > 0) throw failures[0];
}

function tarPath(directory: string, layer: StoredLayer): string {
  return join(directory, tarName(layer));
}

function tarName({ diffId }: StoredLayer): string {
  return `${digestHex(diffId)}.tar`;
}

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
      const manifest = [{ ...named, Layers: run.layers.map(tarName) }];
      return to(run, [{ name: 'manifest.json', bytes: Buffer.from(JSON.stringify(manifest)) }, config]);
    });
  if (file === undefined) return write(writeStream);
  return withNewFile(file, (unfinished) =>
    write(async (run, documents) => {
      await writeFile(run, unfinished, documents);
      await unfinished.publish();
      return true;
    }),
  );
}

interface Document {
  readonly name: string;
  readonly bytes: Buffer;
}

/** Writes the archive to the standard output. Returns false when its reader closed it early. */
async function writeStream(
  { pool, layers, stages }: ExportRun,
  documents: readonly Document[],
): Promise<boolean> {
  const each = distinct(layers);
  const headerOf = (member: ArchiveMember) => planArchive([member]).members[0]!.header;
  const { closed, damaged } = await pool.run({
    task: 'write-archive',
    layers: each.map((layer) => ({
      ...layer,
      header: headerOf({ name: tarName(layer), sizeBytes: layer.tarBytes }),
    })),
    documents: documents.map(({ name, bytes }) => ({
      header: headerOf({ name, sizeBytes: bytes.length }),
      bytes,
    })),
  });
  if (damaged !== undefined) throw await damageOf(pool, each[damaged]!);
  if (!closed) stages.clock.addBytes('prove', totalTarBytes(each));
  return !closed;
}

async function writeFile(run: ExportRun, file: OpenFile, documents: readonly Document[]): Promise<void> {
  const each = distinct(run.layers);
  const plan = planArchive([
    ...documents.map(({ name, bytes }) => ({ name, sizeBytes: bytes.length })),
    ...each.map((layer) => ({ name: tarName(layer), sizeBytes: layer.tarBytes })),
  ]);
  // Before the file gets its length, as some file systems have no holes.
  const { fd, path } = file;
  await requireSpace(dirname(path), plan.sizeBytes);
  wrapFsError(`write ${path}`, () => ftruncateSync(fd, plan.sizeBytes));
  const contents = documents.map(({ bytes }) => bytes);
  for (const [bytes, offset] of archiveParts(plan, contents)) {
    writeFully(fd, path, bytes, offset);
    run.stages.clock.addBytes('write', bytes.length);
  }
  await Promise.all(
    each.map((layer, row) =>
      writeLayer(run, layer, file, plan.members[documents.length + row]!.contentStart),
    ),
  );
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
