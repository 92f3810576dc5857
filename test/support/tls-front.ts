import { once } from 'node:events';
import { connect } from 'node:net';
import type { TestContext } from 'node:test';
import { createServer, type TlsOptions } from 'node:tls';
import { certificates } from './certificate.js';
import { listen } from './scripted-server.js';

/**
 * A TLS server on a free port of 127.0.0.1 that passes everything on to the server at `host`, byte by byte: what breaks
 * or stalls behind it breaks or stalls before it. Returns its `host:port`; it ends with the test.
 */
export async function tlsFront(t: TestContext, host: string, more: TlsOptions = {}): Promise<string> {
  const [hostname, port] = host.split(':');
  const server = createServer({ ...certificates().server, ...more }, (outer) => {
    const inner = connect({ host: hostname!, port: Number(port) });
    outer.on('error', () => inner.destroy());
    inner.on('error', () => outer.destroy());
    inner.on('close', () => outer.destroy());
    outer.on('close', () => inner.destroy());
    outer.pipe(inner).pipe(outer);
  });
  const open = new Set<{ destroy(): void }>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  t.after(async () => {
    for (const socket of open) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return listen(server);
}
