import { decompress } from '@mongodb-js/zstd';
import { PullError } from '../../src/format/error.js';
import { FrameWalker } from '../../src/format/zstd-frame.js';

/**
 * Block bounds may exceed the stated size by this factor (blocks cut short by flushes) before we
 * refuse to decode.
 */
const BOUND_FACTOR = 2;
const BOUND_SLACK_BYTES = 2 ** 20;

/**
 * Decodes a TOC or a tar-split to the size that the annotations state. Walks its frames first, and
 * refuses to decode what could become much larger.
 * @throws PullError `metadata-malformed` if it is no complete frame or has another length
 */
export async function decodeMetadata(
  frames: Buffer,
  uncompressedBytes: number,
  what: string,
): Promise<Buffer> {
  const walker = walkFrames(frames, what);
  if (frames.length === 0 || walker.completeBytes !== frames.length) {
    throw new PullError('metadata-malformed', `the ${what} does not end where a zstd frame ends`);
  }
  if (walker.boundUpTo(walker.frameCount - 1) > uncompressedBytes * BOUND_FACTOR + BOUND_SLACK_BYTES) {
    throw new PullError(
      'metadata-malformed',
      `the ${what} could decode to far more than the ${uncompressedBytes} bytes it states`,
    );
  }
  let decoded: Buffer;
  try {
    decoded = await decompress(frames);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the ${what} cannot be decoded (${reason})`);
  }
  if (decoded.length !== uncompressedBytes) {
    throw new PullError(
      'metadata-malformed',
      `the ${what} has ${decoded.length} bytes, ${uncompressedBytes} are stated`,
    );
  }
  return decoded;
}

/** Replaces the error of the walker, whose offsets are not those of the blob. */
function walkFrames(frames: Buffer, what: string): FrameWalker {
  const walker = new FrameWalker();
  try {
    walker.advance(frames, frames.length);
  } catch (error) {
    if (!(error instanceof PullError) || error.code !== 'metadata-malformed') throw error;
    throw new PullError('metadata-malformed', `the ${what} is no zstd frame`, { cause: error });
  }
  return walker;
}
