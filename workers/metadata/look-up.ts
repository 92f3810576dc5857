import type { LayerTable } from '../../src/format/layer-table.js';
import { MAX_METADATA_MEMORY_BYTES } from '../../src/format/metadata-position.js';
import { contentPath } from '../../src/format/toc.js';
import type { ResumedPiece } from '../../src/plan/layer-parts.js';
import type { BlobRow, LookUpResult, LookUpTask, NameContentTask } from '../../src/pool/messages.js';
import { type CachedContentRows, listCachedContents } from '../../src/store/cached-contents.js';
import { getBlob } from '../../src/store/image-record.js';
import { lookUp as lookUpInStore, type RequestedDigests } from '../../src/store/look-up.js';
import { paths } from '../context.js';

/** Looks up the contents, chunks and blobs of the layers in all packs at once. */
export function lookUp(task: LookUpTask): LookUpResult {
  const unique = [...new Set(task.blobs)];
  const uniqueOpaque = [...new Set(task.opaqueBlobs)];
  const answer = lookUpInStore(paths, {
    digests: task.tables.flatMap((table) => [contents(table), chunks(table)]),
    blobs: [
      ...unique.map((digest) => ({ digest, raw: false })),
      ...uniqueOpaque.map((digest) => ({ digest, raw: true })),
    ],
  });
  const { resumed } = answer;
  const rows = [...unique, ...uniqueOpaque].map((): ResumedPiece[] => []);
  for (let i = 0; i < resumed.count; i++) {
    const blobStart = resumed.blobStart[i]!;
    rows[resumed.blob[i]!]!.push({
      blobStart,
      blobEnd: blobStart + resumed.blobLength[i]!,
      tarStart: resumed.tarStart[i]!,
      lengthBytes: resumed.lengthBytes[i]!,
      pack: resumed.pack[i]!,
      packOffset: resumed.packOffset[i]!,
    });
  }
  const layers = task.blobs.map((blob, i) => {
    const whole = answer.found[2 * i]!;
    const parts = answer.found[2 * i + 1]!;
    return {
      cachedPack: whole.pack,
      cachedOffset: whole.offset,
      chunkCachedPack: parts.pack,
      chunkCachedOffset: parts.offset,
      resumed: rows[unique.indexOf(blob)]!,
    };
  });
  const opaque = task.opaqueBlobs.map(
    (blob): readonly BlobRow[] => rows[unique.length + uniqueOpaque.indexOf(blob)]!,
  );
  return { packs: answer.packs, layers, opaque };
}

function contents(table: LayerTable): RequestedDigests {
  return { digests: table.digests, sizeBytes: table.sizeBytes };
}

/** A chunk ends where the next begins, the last one of a content where the content ends. */
function chunks(table: LayerTable): RequestedDigests {
  const { chunkFirst, chunkTarStart } = table;
  const sizeBytes = new Float64Array(chunkTarStart.length);
  for (let row = 0; row < table.count; row++) {
    const end = table.tarStart[row]! + table.sizeBytes[row]!;
    const last = chunkFirst[row + 1]! - 1;
    for (let chunk = chunkFirst[row]!; chunk <= last; chunk++) {
      sizeBytes[chunk] = (chunk === last ? end : chunkTarStart[chunk + 1]!) - chunkTarStart[chunk]!;
    }
  }
  return { digests: table.chunkDigests, sizeBytes };
}

/** Lists the contents that all opaque layers of a pull may share. */
export function listCached(): CachedContentRows {
  return listCachedContents(paths);
}

/**
 * Returns the path of a content for an error message. It comes from the stored TOC: layer tables
 * have no paths.
 */
export async function nameContent(task: NameContentTask): Promise<string> {
  const frames = getBlob(paths, task.toc, MAX_METADATA_MEMORY_BYTES);
  if (frames === undefined) return `content ${task.content}`;
  // Hardly any look-up needs the decoder, a native module.
  const { decodeMetadata } = await import('./metadata-blob.js');
  return contentPath(await decodeMetadata(frames, task.tocUncompressedBytes, 'TOC'), task.content);
}
