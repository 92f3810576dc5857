import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { PullError } from '../../../src/format/error.js';
import { FrameQueue, type LayerWriter, TarMeter } from '../../../src/sandbox/layer-writer.js';

/** How much of a gzip member is handed on at a time. */
const GZIP_OUTPUT_BYTES = 2 ** 18;

/** The library compresses buffers only: what becomes one frame is in memory as a whole. */
const MAX_FRAME_RAW_BYTES = 2 ** 31;

/** Writes a tar as it is. */
export const writeTarLayer: LayerWriter = async (tar, write, onProgress) => {
  const meter = new TarMeter();
  for (const piece of metered(tar, meter, onProgress)) write(piece);
  return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations: {} };
};

/** Writes a tar as one gzip member, as it comes. */
export const writeGzipLayer: LayerWriter = async (tar, write, onProgress) => {
  const meter = new TarMeter();
  const gzip = createGzip({ chunkSize: GZIP_OUTPUT_BYTES });
  await pipeline(metered(tar, meter, onProgress), gzip, async (output: AsyncIterable<Buffer>) => {
    for await (const bytes of output) write(bytes);
  });
  return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations: {} };
};

/**
 * Writes tars as zstd frames of `frameBytes` decoded bytes each, or as one frame without it.
 * The writer throws PullError `unsupported` for a frame that would not fit in memory.
 */
export function zstdWriter(frameBytes = Number.POSITIVE_INFINITY): LayerWriter {
  return async (tar, write, onProgress) => {
    const meter = new TarMeter();
    const queue = new FrameQueue(write);
    for (const raw of framesOf(metered(tar, meter, onProgress), frameBytes)) {
      queue.add(raw, () => {});
      await queue.room();
    }
    await queue.drained();
    return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations: {} };
  };
}

function* metered(
  tar: Iterable<Buffer>,
  meter: TarMeter,
  onProgress: (doneBytes: number) => void,
): Generator<Buffer> {
  for (const piece of tar) {
    meter.add(piece);
    yield piece;
    onProgress(piece.length);
  }
}

/** The same bytes in pieces of `frameBytes`, the last one shorter; one empty piece for no bytes. */
function* framesOf(tar: Iterable<Buffer>, frameBytes: number): Generator<Buffer> {
  let parts: Buffer[] = [];
  let partsBytes = 0;
  let isFirst = true;
  for (let piece of tar) {
    while (partsBytes + piece.length >= frameBytes) {
      const rest = frameBytes - partsBytes;
      yield Buffer.concat([...parts, piece.subarray(0, rest)]);
      isFirst = false;
      piece = piece.subarray(rest);
      parts = [];
      partsBytes = 0;
    }
    parts.push(piece);
    partsBytes += piece.length;
    if (partsBytes > MAX_FRAME_RAW_BYTES) {
      throw new PullError('unsupported', 'the layer is too large for one zstd frame', {
        hint: 'state frameBytes to cut it into several',
      });
    }
  }
  if (partsBytes > 0 || isFirst) yield Buffer.concat(parts);
}
