import { connect } from 'node:net';

/** The cheapest: a buffer of 1 MiB leaves the core's cache and takes a third more CPU, one of 256 KiB as much. */
const READ_BYTES = 64 * 1024;

/**
 * Receives a blob by one GET over a bare socket into one buffer, and throws the bytes away; the cheapest way there is
 * in Node. Resolves to the bytes received, the answer's head included.
 */
export function receiveBlob(host: string, digest: string): Promise<number> {
  const [address = '', port = ''] = host.split(':');
  return new Promise((resolve, reject) => {
    let receivedBytes = 0;
    const socket = connect({
      host: address,
      port: Number(port),
      onread: {
        buffer: Buffer.allocUnsafeSlow(READ_BYTES),
        callback: (bytes) => {
          receivedBytes += bytes;
          return true;
        },
      },
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(receivedBytes));
    socket.write(`GET /v2/bench/blobs/${digest} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  });
}
