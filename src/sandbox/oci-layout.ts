import { createHash, randomUUID } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Digest, digestHex, digestOfBytes } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { OCI_INDEX } from '../format/manifest.js';
import { type Fields, isObject } from '../format/strict-json.js';

/** A descriptor (OCI image-spec, descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Writes a new blob of a layout. */
export interface BlobWriter {
  write(bytes: Buffer): void;
  /** Completes the blob and renames it to its digest. */
  finish(): { digest: Digest; sizeBytes: number };
  /** Deletes the unfinished blob. */
  discard(): void;
}

const REF_NAME = 'org.opencontainers.image.ref.name';

const HINT = 'repair the layout, or choose a directory that does not exist yet';

/** Small frames are collected up to this size before they are written. */
const WRITE_BYTES = 2 ** 20;

/**
 * Creates an OCI image layout in a directory if it is missing (OCI image-spec, image-layout.md).
 */
export function createLayout(layoutDir: string): void {
  mkdirSync(join(layoutDir, 'blobs', 'sha256'), { recursive: true });
  writeFileSync(join(layoutDir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

/** Opens a new blob of a layout. */
export function openBlob(layoutDir: string): BlobWriter {
  const blobs = join(layoutDir, 'blobs', 'sha256');
  const path = join(blobs, `.${randomUUID()}.tmp`);
  const file = openSync(path, 'wx');
  const hash = createHash('sha256');
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let sizeBytes = 0;
  const flush = () => {
    const bytes = Buffer.concat(waiting, waitingBytes);
    waiting = [];
    waitingBytes = 0;
    hash.update(bytes);
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  };
  return {
    write(bytes) {
      waiting.push(bytes);
      waitingBytes += bytes.length;
      sizeBytes += bytes.length;
      if (waitingBytes >= WRITE_BYTES) flush();
    },
    finish() {
      flush();
      closeSync(file);
      const digest = digestOfBytes(hash.digest());
      renameSync(path, join(blobs, digestHex(digest)));
      return { digest, sizeBytes };
    },
    discard() {
      closeSync(file);
      rmSync(path, { force: true });
    },
  };
}

/** Writes a JSON document as a blob. */
export function putJson(layoutDir: string, mediaType: string, value: object): Descriptor {
  const blob = openBlob(layoutDir);
  blob.write(Buffer.from(JSON.stringify(value)));
  const { digest, sizeBytes } = blob.finish();
  return { mediaType, digest, size: sizeBytes };
}

/**
 * Adds a manifest to index.json under a name, replacing an entry with the same name.
 * @throws PullError `metadata-malformed` for a malformed index.json
 */
export function nameManifest(layoutDir: string, ref: string, manifest: Descriptor): void {
  const path = join(layoutDir, 'index.json');
  const others = readIndex(path).filter((entry) => refOf(entry) !== ref);
  const manifests = [...others, { ...manifest, annotations: { [REF_NAME]: ref } }];
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  writeFileSync(`${path}.tmp`, JSON.stringify(index));
  renameSync(`${path}.tmp`, path);
}

function readIndex(path: string): Fields[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
  try {
    const index: unknown = JSON.parse(text);
    const manifests = isObject(index) ? index['manifests'] : undefined;
    if (Array.isArray(manifests) && manifests.every(isObject)) return manifests;
  } catch (cause) {
    throw new PullError('metadata-malformed', `${path} is not JSON`, { hint: HINT, cause });
  }
  throw new PullError('metadata-malformed', `${path} is not an OCI image index`, { hint: HINT });
}

function refOf({ annotations }: Fields): unknown {
  return isObject(annotations) ? annotations[REF_NAME] : undefined;
}
