import type { OnReadOpts, Socket } from 'node:net';

/** What one read of a socket brings at most: four times what Node reads by itself, so that there are fewer of them. 16 connections have 4 MiB. */
const BUFFER_BYTES = 256 * 1024;

/**
 * One buffer that a connection's sockets read into again and again, in place of a new one for each read. undici asks a socket for what it has
 * read, which a socket with `onread` does not answer: `serve` makes it do so. The bytes that it gives are good until the next read.
 */
export class ReusedBuffer {
  readonly onread: OnReadOpts;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #isHeld: () => boolean;
  #socket: Socket | undefined;
  /** Bytes in the buffer that nobody has taken. */
  #filledBytes = 0;
  /** Node reads no more until it is asked to. */
  #isStopped = false;

  /** `isHeld`: nothing is to be read. */
  constructor(isHeld: () => boolean) {
    this.#isHeld = isHeld;
    this.onread = { buffer: this.#buffer, callback: (bytes) => this.#filled(bytes) };
  }

  /** Makes `read()` of a connected socket give what is in the buffer: a copy of it unless `isBody`, as undici keeps what it has of a head. */
  serve(socket: Socket, isBody: () => boolean): void {
    this.#socket = socket;
    this.#filledBytes = 0;
    this.#isStopped = false;
    const read = socket.read;
    socket.read = (sizeBytes?: number): unknown => {
      if (sizeBytes === 0) return read.call(socket, 0);
      if (this.#isHeld()) return null;
      if (this.#filledBytes > 0) {
        const bytes = this.#buffer.subarray(0, this.#filledBytes);
        this.#filledBytes = 0;
        return isBody() ? bytes : Buffer.from(bytes);
      }
      if (this.#isStopped) {
        this.#isStopped = false;
        read.call(socket, 0);
      }
      return null;
    };
  }

  /** Node has read. @returns whether it may read on: all has been taken, and is of no use to anybody any more */
  #filled(bytes: number): boolean {
    this.#filledBytes = bytes;
    this.#socket?.emit('readable');
    const goesOn = this.#filledBytes === 0 && !this.#isHeld();
    this.#isStopped = !goesOn;
    return goesOn;
  }
}
