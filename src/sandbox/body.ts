import { closeSync, readSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BlobFile, openBlob } from './layout-reader.js';

/** A link of limited rate, first come, first served. Several bodies may share it. */
export interface Link {
  /**
   * Returns how many bytes a body should send next, so that every body on the link sends every few
   * milliseconds.
   */
  sliceBytes(): number;
  /** Resolves when `bytes` more may be sent. */
  pass(bytes: number): Promise<void>;
}

/**
 * The time of one slice: short enough that a slow body looks steady, long enough for 1 ms timers.
 */
const SLICE_MS = 10;
/**
 * Timers fire a millisecond or two late. A link catches up at most this much, so that bursts stay
 * short.
 */
const CATCH_UP_MS = 20;

/** The clock of a link, in milliseconds. */
interface Clock {
  now(): number;
  sleep(ms: number): Promise<void>;
}

const CLOCK: Clock = {
  now: () => performance.now(),
  // Unreferenced, so that a closed server does not wait for its bodies.
  sleep: (ms) => sleep(ms, undefined, { ref: false }),
};

/** Creates a link of `rateBytes` per second. */
export function createLink(rateBytes: number, clock: Clock = CLOCK): Link {
  let freeAtMs = clock.now();
  let waiting = 0;
  return {
    sliceBytes: () => Math.max(1, Math.floor((rateBytes * SLICE_MS) / 1000 / Math.max(1, waiting))),
    pass: async (bytes) => {
      freeAtMs = Math.max(freeAtMs, clock.now() - CATCH_UP_MS) + (bytes * 1000) / rateBytes;
      const delayMs = freeAtMs - clock.now();
      if (delayMs <= 0) return;
      waiting++;
      await clock.sleep(delayMs);
      waiting--;
    },
  };
}

/** Resolves when `bytes` may pass all of these links. */
export async function passAll(links: readonly Link[], bytes: number): Promise<void> {
  for (const link of links) await link.pass(bytes);
}

/** Returns the smallest slice of these links, at most `limitBytes`. */
export function sliceOf(links: readonly Link[], limitBytes: number): number {
  let slice = limitBytes;
  for (const link of links) slice = Math.min(slice, link.sliceBytes());
  return slice;
}

/** The body of an answer: bytes in memory or a file. */
export type Body = Buffer | BlobFile;

export interface BodyPart {
  readonly body: Body;
  /** Bytes [start, end) of the body are sent. */
  readonly start: number;
  readonly end: number;
  /** Offset in the body of a byte to invert. */
  readonly flipByteAt: number | undefined;
  readonly links: readonly Link[];
  /** Called after each write with the bytes that the kernel accepted. */
  readonly onSent: (bytes: number) => void;
}

/**
 * Bytes of one read and one write. The server shares its cores with the client that is measured: 1
 * GB costs 0.55 CPU seconds at 64 KiB, 0.43 at 512 KiB and 0.39 at 1 MiB, which does not justify
 * twice the memory.
 */
const READ_BYTES = 512 * 1024;
/** Buffers kept for reuse: 32 MiB, one for each of 64 connections. */
const MAX_SPARE_BUFFERS = 64;
const spareBuffers: Buffer[] = [];

/** Returns the length of a body. */
export function bodySizeBytes(body: Body): number {
  return Buffer.isBuffer(body) ? body.length : body.sizeBytes;
}

/**
 * Sends a part of a body after the headers, with one buffer that is refilled after each write.
 * @returns false if the client disconnected or the file ended early
 */
export async function sendBody(response: ServerResponse, part: BodyPart): Promise<boolean> {
  const { body } = part;
  if (Buffer.isBuffer(body)) {
    return writeOut(response, part, (buffer, length, at) => body.copy(buffer, 0, at, at + length));
  }
  // Synchronous reads from the page cache: libuv's pool would cost 10 % more CPU.
  const file = openBlob(body);
  try {
    return await writeOut(response, part, (buffer, length, at) => readSync(file, buffer, 0, length, at));
  } finally {
    closeSync(file);
  }
}

async function writeOut(
  response: ServerResponse,
  part: BodyPart,
  readAt: (buffer: Buffer, length: number, at: number) => number,
): Promise<boolean> {
  const buffer = spareBuffers.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
  const write = createWriter(response);
  try {
    let at = part.start;
    while (at < part.end) {
      const length = Math.min(sliceOf(part.links, READ_BYTES), part.end - at);
      await passAll(part.links, length);
      if (response.destroyed) return false;
      const read = readAt(buffer, length, at);
      if (read === 0) return false;
      flip(buffer, part.flipByteAt, at, read);
      await write(buffer.subarray(0, read));
      if (response.destroyed) return false;
      at += read;
      part.onSent(read);
    }
    return true;
  } finally {
    if (spareBuffers.length < MAX_SPARE_BUFFERS) spareBuffers.push(buffer);
  }
}

/**
 * Returns a write that resolves when the kernel has accepted the bytes or the client disconnected.
 */
function createWriter(response: ServerResponse): (bytes: Buffer) => Promise<void> {
  let wake: () => void = () => undefined;
  response.once('close', () => wake());
  return (bytes) =>
    new Promise((resolve) => {
      wake = resolve;
      response.write(bytes, () => resolve());
    });
}

function flip(buffer: Buffer, flipByteAt: number | undefined, at: number, length: number): void {
  if (flipByteAt === undefined || flipByteAt < at || flipByteAt >= at + length) return;
  buffer[flipByteAt - at]! ^= 0xff;
}
