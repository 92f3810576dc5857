import { MAX_USUAL_WINDOW_BYTES } from '../../src/format/zstd-frame.js';
import type { LargeWindows } from '../../workers/opaque/large-windows.js';
import { DecodedQueue, type StreamDecoder, StreamProblem } from '../../workers/opaque/stream-decoder.js';

/** The memory allowance of a zstd decoder that runs alone. */
export const USUAL_WINDOWS: LargeWindows = {
  maxBytes: MAX_USUAL_WINDOW_BYTES,
  acquire: async () => () => {},
};

/** Decodes these pieces one after the other. Returns the output, and the problem if there was one. */
export async function decode(
  make: (out: DecodedQueue) => StreamDecoder,
  pieces: readonly Buffer[],
): Promise<{ bytes: Buffer; problem?: StreamProblem }> {
  const parts: Buffer[] = [];
  const out = new DecodedQueue((bytes) => parts.push(Buffer.from(bytes)));
  const decoder = make(out);
  try {
    for (const piece of pieces) {
      const memory = Buffer.from(piece);
      const room = decoder.write(memory);
      memory.fill(0xaa); // the bytes are the caller's again
      await room;
    }
    await decoder.end();
    return { bytes: Buffer.concat(parts) };
  } catch (error) {
    if (!(error instanceof StreamProblem)) throw error;
    return { bytes: Buffer.concat(parts), problem: error };
  } finally {
    out.close();
    await decoder.close();
  }
}
