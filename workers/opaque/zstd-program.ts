import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { PullError } from '../../src/format/error.js';
import type { DecodedQueue } from './decoded-queue.js';
import type { FrameDecoder } from './zstd-engine.js';

/** What comes out of the pipe, 64 KiB at a time, is gathered to blocks of this size. */
const BLOCK_BYTES = 512 * 1024;

/** Most characters kept of the program's error message: one sentence. */
const MAX_COMPLAINT_LETTERS = 500;

/**
 * Decodes a frame by the program zstd. When this thread is ended, its pipe breaks, and the program
 * ends, too.
 */
export class ProgramFrame implements FrameDecoder {
  readonly takesMany = true;
  readonly #out: DecodedQueue;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #closed: Promise<void>;
  #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;
  #complaint = '';
  #failure: Error | undefined;

  /** `maxWindowBytes`: the largest window that a frame may ask for. */
  constructor(maxWindowBytes: number, out: DecodedQueue) {
    this.#out = out;
    const memory = `--memory=${Math.ceil(maxWindowBytes / 2 ** 10)}KiB`;
    this.#child = spawn('zstd', ['-dcq', memory], { stdio: 'pipe' });
    const { stdin, stdout, stderr } = this.#child;
    stdin.on('error', () => {}); // a broken pipe: how the program ended says why
    out.pour(stdout, (chunk) => this.#gather(chunk));
    stderr.on('data', (text: Buffer) => {
      this.#complaint = (this.#complaint + text).slice(0, MAX_COMPLAINT_LETTERS);
    });
    this.#child.on('error', (error) => {
      this.#failure = error;
    });
    this.#closed = new Promise((resolve) => this.#child.on('close', () => resolve()));
  }

  async feed(bytes: Buffer): Promise<void> {
    const written = new Promise<boolean>((resolve) =>
      this.#child.stdin.write(bytes, (error) => resolve(error == null)),
    );
    if (!(await written)) await this.#ended();
  }

  async finish(): Promise<void> {
    this.#child.stdin.end();
    await this.#ended();
    this.#handOn();
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }

  /**
   * Waits for the end of the program. Rejects with what it says of the frame; PullError `internal`
   * if it could not work.
   */
  async #ended(): Promise<void> {
    await this.#closed;
    const { exitCode, signalCode } = this.#child;
    if (this.#failure !== undefined || signalCode !== null) {
      const why = this.#failure?.message ?? `it was ended by ${signalCode}`;
      throw new PullError('internal', `the program zstd did not do its work: ${why}`, {
        hint: 'check that zstd --version works, or use Node 22.15 or later, which needs no such program',
      });
    }
    if (exitCode !== 0)
      throw new Error(this.#complaint.trim() || `zstd ended with the exit code ${exitCode}`);
  }

  #gather(chunk: Buffer): void {
    if (this.#filled + chunk.length > BLOCK_BYTES) this.#handOn();
    chunk.copy(this.#block, this.#filled);
    this.#filled += chunk.length;
  }

  #handOn(): void {
    if (this.#filled === 0) return;
    this.#out.push(this.#block.subarray(0, this.#filled));
    this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.#filled = 0;
  }
}

/** Whether a program of this name can be run. */
export function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
