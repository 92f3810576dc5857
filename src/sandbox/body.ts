import { closeSync, readSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BlobFile, openBlob } from './layout-reader.js';

/**
 * One link of a given rate: bytes leave it in the order in which they asked. Several bodies may share it.
 */
export interface Link {
  /** How many bytes a body should ask for next so that all bodies on the link get a turn every few milliseconds. */
  sliceBytes(): number;
  /** Resolves when `bytes` more may leave. */
  pass(bytes: number): Promise<void>;
}

/** The bytes of one turn: short enough that a slow body looks steady, long enough for a 1 ms timer to be exact. */
const TURN_MS = 10;
/** Timers fire late by a millisecond or two; a link that fell behind by up to this much catches up, no burst beyond. */
const CATCH_UP_MS = 20;

/** What a link needs of time, in milliseconds. */
interface Clock {
  now(): number;
  sleep(ms: number): Promise<void>;
}

const CLOCK: Clock = {
  now: () => performance.now(),
  // Unreferenced: a listening server keeps the process alive, a closed one must not wait for its bodies.
  sleep: (ms) => sleep(ms, undefined, { ref: false }),
};

/** A link of `rateBytes` per second. */
export function createLink(rateBytes: number, clock: Clock = CLOCK): Link {
  let freeAtMs = clock.now();
  let waiting = 0;
  return {
    sliceBytes: () => Math.max(1, Math.floor((rateBytes * TURN_MS) / 1000 / Math.max(1, waiting))),
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

/** Resolves when `bytes` may leave through every one of these links. */
export async function passAll(links: readonly Link[], bytes: number): Promise<void> {
  for (const link of links) await link.pass(bytes);
}

/** The smallest slice of these links, at most `limitBytes`. */
export function sliceOf(links: readonly Link[], limitBytes: number): number {
  let slice = limitBytes;
  for (const link of links) slice = Math.min(slice, link.sliceBytes());
  return slice;
}

/** What an answer carries: bytes at hand, or a file. */
export type Body = Buffer | BlobFile;

export interface BodyPart {
  readonly body: Body;
  /** Bytes [start, end) of the body are sent. */
  readonly start: number;
  readonly end: number;
  /** Offset in the body of a byte to send wrong. */
  readonly flipByteAt: number | undefined;
  readonly links: readonly Link[];
  /** Called after each write with the bytes the kernel took. */
  readonly onSent: (bytes: number) => void;
}

/**
 * One read and one write. The server shares its cores with the client that is measured: a GB costs it 0.55 CPU
 * seconds at 64 KiB, 0.43 at 512 KiB, 0.39 at 1 MiB, which is not worth twice the memory.
 */
const READ_BYTES = 512 * 1024;
/** Buffers kept for the next answers: 32 MiB, one for each of 64 connections. */
const MAX_SPARE_BUFFERS = 64;
const spareBuffers: Buffer[] = [];

/** How long a body is. */
export function bodySizeBytes(body: Body): number {
  return Buffer.isBuffer(body) ? body.length : body.sizeBytes;
}

/**
 * Writes a part of a body behind headers already set; one buffer, refilled when the kernel has taken it.
 * Returns true when all of it was taken, false when the client went or the file ended early.
 */
export async function sendBody(response: ServerResponse, part: BodyPart): Promise<boolean> {
  const { body } = part;
  if (Buffer.isBuffer(body)) {
    return writeOut(response, part, (buffer, length, at) => body.copy(buffer, 0, at, at + length));
  }
  // Synchronous: the page cache answers, and the way to libuv's pool and back would cost a tenth more CPU.
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

/** A write that resolves when the kernel has the bytes or the client is gone: then the buffer is free again. */
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
