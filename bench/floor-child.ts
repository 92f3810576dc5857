import { connect } from 'node:net';
import { measureMachine } from '../src/api/measure.js';
import { StageRecorder } from '../src/api/stages.js';

/** What the process is told, as JSON in its first argument. */
export interface FloorOptions {
  /** The image in a layout. */
  readonly image: string;
  readonly host: string;
  /** Digests of the blobs to receive. */
  readonly digests: readonly string[];
  /** Where files are written. */
  readonly store: string;
}

interface Cost {
  readonly bytes: number;
  readonly cpuSeconds: number;
}

/** What the same work costs, part by part, each alone. */
export type Floor = Readonly<Record<'decode' | 'hash' | 'write' | 'receive', Cost>>;

/** The cheapest: a buffer of 1 MiB leaves the core's cache and takes a third more CPU, one of 256 KiB as much. */
const READ_BYTES = 64 * 1024;

const { image, host, digests, store } = JSON.parse(process.argv[2] ?? '') as FloorOptions;
const recorder = new StageRecorder();
let bytes = 0;
for (const digest of digests) bytes += await receiveBlob(host, digest);
const { cpuSeconds } = recorder.result();
const alone = await measureMachine(image, { store, platform: 'linux/amd64', workers: 1 });
const costOf = ({ one }: typeof alone.decode): Cost => ({ bytes: one.bytes, cpuSeconds: one.cpuMs / 1000 });
const floor: Floor = {
  decode: costOf(alone.decode),
  hash: costOf(alone.hash),
  write: costOf(alone.write),
  receive: { bytes, cpuSeconds },
};
process.stdout.write(`${JSON.stringify(floor)}\n`);

/**
 * Receives a blob by one GET over a bare socket into one buffer, and throws the bytes away; the cheapest way there is
 * in Node. Resolves to the bytes received, the answer's head included.
 */
function receiveBlob(server: string, digest: string): Promise<number> {
  const [address = '', port = ''] = server.split(':');
  return new Promise((resolve, reject) => {
    let receivedBytes = 0;
    const socket = connect({
      host: address,
      port: Number(port),
      onread: {
        buffer: Buffer.allocUnsafeSlow(READ_BYTES),
        callback: (length) => {
          receivedBytes += length;
          return true;
        },
      },
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(receivedBytes));
    socket.write(`GET /v2/bench/blobs/${digest} HTTP/1.1\r\nHost: ${server}\r\nConnection: close\r\n\r\n`);
  });
}
