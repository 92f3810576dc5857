import { MAX_METADATA_MEMORY_BYTES } from '../../src/format/metadata-position.js';
import { contentPath } from '../../src/format/toc.js';
import type { NameContentTask } from '../../src/pool/messages.js';
import { getBlob } from '../../src/store/image-record.js';
import { paths } from '../context.js';
import { decodeMetadata } from '../metadata/metadata-blob.js';

/**
 * Returns the path of a content for an error message. It comes from the stored TOC: layer tables
 * have no paths.
 */
export async function nameContent(task: NameContentTask): Promise<string> {
  const frames = getBlob(paths, task.toc, MAX_METADATA_MEMORY_BYTES);
  if (frames === undefined) return `content ${task.content}`;
  return contentPath(await decodeMetadata(frames, task.tocUncompressedBytes, 'TOC'), task.content);
}
