import type { OnReadOpts, Socket } from 'node:net';

/** What one read of a socket brings at most: four times what Node reads by itself, so that there are fewer of them. 16 connections have 4 MiB. */
const BUFFER_BYTES = 256 * 1024;

/** RFC 9112, section 2.1. */
const HEAD_END = '\r\n\r\n';

/**
 * One buffer that a connection's sockets read into again and again, in place of a new one for each read. undici asks a socket for what it has
 * read, which a socket with `onread` does not answer: `serve` makes it do so. The bytes that it gives are good until the next read.
 */
export class ReusedBuffer {
  readonly onread: OnReadOpts;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #isCached: () => boolean;
  #socket: Socket | undefined;
  /** The bytes of the buffer that have not been taken. */
  #start = 0;
  #end = 0;
  /** Node reads no more until it is asked to. */
  #isStopped = false;

  /** `isCached`: nothing is to be read. */
  constructor(isCached: () => boolean) {
    this.#isCached = isCached;
    this.onread = { buffer: this.#buffer, callback: (bytes) => this.#filled(bytes) };
  }

  /**
   * Makes `read()` of a connected socket give what is in the buffer. Unless `isBody` that is a copy, as undici keeps what it has of a head; what
   * comes behind the head is not copied with it: of a copy of 800 MB that would be 25 MB, for V8 to collect some day.
   */
  serve(socket: Socket, isBody: () => boolean): void {
    this.#socket = socket;
    this.#end = this.#start;
    this.#isStopped = false;
    const read = socket.read;
    socket.read = (sizeBytes?: number): unknown => {
      if (sizeBytes === 0) return read.call(socket, 0);
      if (this.#isCached()) return null;
      if (this.#start < this.#end)
        return isBody() ? this.#take(this.#end) : Buffer.from(this.#take(this.#headEnd()));
      if (this.#isStopped) {
        this.#isStopped = false;
        read.call(socket, 0);
      }
      return null;
    };
  }

  #take(end: number): Buffer {
    const bytes = this.#buffer.subarray(this.#start, end);
    this.#start = end;
    return bytes;
  }

  /** Where a head ends that lies in the buffer; the end of all if none does. */
  #headEnd(): number {
    const at = this.#buffer.indexOf(HEAD_END, this.#start);
    return at < 0 ? this.#end : Math.min(at + HEAD_END.length, this.#end);
  }

  /** Node has read. @returns whether it may read on: all has been taken, and is of no use to anybody any more */
  #filled(bytes: number): boolean {
    this.#start = 0;
    this.#end = bytes;
    this.#socket?.emit('readable');
    const goesOn = this.#start === this.#end && !this.#isCached();
    this.#isStopped = !goesOn;
    return goesOn;
  }
}
